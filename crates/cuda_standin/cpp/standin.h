// What the parts of the stand-in share.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>

#include <c10/core/Allocator.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/Device.h>

namespace standin {

// The one device.
inline const c10::Device DEVICE(c10::DeviceType::CUDA, 0);

// An address on the device is that of host memory with one bit more, which no address of a process has. Kernels take the
// bit away; whoever else reads or writes there gets a segmentation fault, as with the memory of a GPU.
constexpr uintptr_t MARK = uintptr_t{1} << 55;

inline bool on_device(const void* address) {
  return (reinterpret_cast<uintptr_t>(address) & MARK) != 0;
}

inline void* on_host(const void* address) {
  return reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(address) & ~MARK);
}

c10::DeviceAllocator& device_allocator();
c10::Allocator& pinned_allocator();
bool is_pinned(const void* address);

// What has been asked of the device so far.
struct Counts {
  std::atomic<int64_t> kernels, allocations;
  // Copies that the host waits for, and those that it does not.
  std::atomic<int64_t> blocking_uploads, queued_uploads, blocking_downloads, queued_downloads;
  // Times that the host waited without a copy.
  std::atomic<int64_t> waits;
};
Counts& counts();

// The device does everything at once but one thing: a download that the host does not wait for arrives when it waits for
// that moment, or for all.
uint64_t queue_download(std::function<void()> arrive);
// The moment after all that was queued so far.
uint64_t now();
void wait_for(uint64_t moment);

}  // namespace standin
