// The device's memory, and page-locked memory of the host.

#include "standin.h"

#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#include <c10/util/Exception.h>

namespace standin {
namespace {

constexpr size_t LINE = 64;

// Bytes of device memory: CUDA_STANDIN_BYTES, else as good as endless.
size_t capacity() {
  static const size_t bytes = [] {
    const char* text = std::getenv("CUDA_STANDIN_BYTES");
    return text ? std::strtoull(text, nullptr, 10) : SIZE_MAX;
  }();
  return bytes;
}

// `bytes` of memory that knows their number, which stands before them.
void* take(size_t bytes) {
  auto* start = static_cast<char*>(std::aligned_alloc(LINE, (bytes + 2 * LINE - 1) / LINE * LINE));
  TORCH_CHECK_WITH(OutOfMemoryError, start, "the host has no ", bytes, " bytes for the stand-in: out of memory");
  std::memcpy(start, &bytes, sizeof bytes);
  // Not numbers, whatever is read of it before it is written.
  std::memset(start + LINE, 0xff, bytes);
  return start + LINE;
}

size_t give_back(void* memory) {
  char* start = static_cast<char*>(memory) - LINE;
  size_t bytes;
  std::memcpy(&bytes, start, sizeof bytes);
  std::free(start);
  return bytes;
}

struct DeviceMemory final : c10::DeviceAllocator {
  c10::DataPtr allocate(size_t bytes) override {
    if (bytes == 0) return {nullptr, nullptr, &release, DEVICE};
    counts().allocations++;
    {
      std::lock_guard<std::mutex> lock(mutex);
      const auto used = static_cast<size_t>(stats.allocated_bytes[0].current);
      if (bytes > capacity() || used > capacity() - bytes) {
        stats.num_ooms++;
        // The words of CUDA's allocator.
        TORCH_CHECK_WITH(OutOfMemoryError, false, "CUDA out of memory. Tried to allocate ", bytes,
                         " bytes. GPU 0 has a total capacity of ", capacity(), " bytes of which ", capacity() - used,
                         " bytes is free.");
      }
      change(bytes, true);
    }
    void* memory = reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(take(bytes)) | MARK);
    return {memory, memory, &release, DEVICE};
  }
  static void release(void* memory);
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    std::memcpy(on_host(to), on_host(from), bytes);
  }

  bool initialized() override { return true; }
  void emptyCache(c10::MempoolId_t) override {}
  void recordStream(const c10::DataPtr&, c10::Stream) override {}
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(c10::DeviceIndex) override {
    std::lock_guard<std::mutex> lock(mutex);
    return stats;
  }
  void resetAccumulatedStats(c10::DeviceIndex) override {}
  void resetPeakStats(c10::DeviceIndex) override {
    std::lock_guard<std::mutex> lock(mutex);
    stats.allocated_bytes[0].reset_peak();
    stats.reserved_bytes[0].reset_peak();
  }

  // Under the lock. Nothing is kept: what is reserved is what is in use.
  void change(size_t bytes, bool more) {
    for (auto* stat : {&stats.allocated_bytes[0], &stats.reserved_bytes[0]}) {
      more ? stat->increase(bytes) : stat->decrease(bytes);
    }
  }

  std::mutex mutex;
  c10::CachingDeviceAllocator::DeviceStats stats;
};

// Never destroyed: tensors may live as long as the process.
DeviceMemory& device_memory() {
  static auto* memory = new DeviceMemory;
  return *memory;
}

void DeviceMemory::release(void* memory) {
  if (memory == nullptr) return;
  const size_t bytes = give_back(on_host(memory));
  std::lock_guard<std::mutex> lock(device_memory().mutex);
  device_memory().change(bytes, false);
}

struct PinnedMemory final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    if (bytes == 0) return {nullptr, nullptr, &release, c10::DeviceType::CPU};
    void* memory = take(bytes);
    std::lock_guard<std::mutex> lock(mutex);
    areas[memory] = bytes;
    return {memory, memory, &release, c10::DeviceType::CPU};
  }
  static void release(void* memory);
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t bytes) const override { std::memcpy(to, from, bytes); }

  std::mutex mutex;
  std::map<const void*, size_t> areas;
};

PinnedMemory& pinned_memory() {
  static auto* memory = new PinnedMemory;
  return *memory;
}

void PinnedMemory::release(void* memory) {
  if (memory == nullptr) return;
  {
    std::lock_guard<std::mutex> lock(pinned_memory().mutex);
    pinned_memory().areas.erase(memory);
  }
  give_back(memory);
}

const bool registered = [] {
  c10::SetAllocator(c10::DeviceType::CUDA, &device_memory(), /*priority=*/255);
  return true;
}();

}  // namespace

c10::DeviceAllocator& device_allocator() {
  return device_memory();
}

c10::Allocator& pinned_allocator() {
  return pinned_memory();
}

bool is_pinned(const void* address) {
  std::lock_guard<std::mutex> lock(pinned_memory().mutex);
  auto area = pinned_memory().areas.upper_bound(address);
  if (area == pinned_memory().areas.begin()) return false;
  --area;
  return static_cast<const char*>(address) < static_cast<const char*>(area->first) + area->second;
}

}  // namespace standin
