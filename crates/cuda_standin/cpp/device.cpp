// The device itself: its guard, through which LibTorch asks for streams and events, its hooks, and its one queue.

#include "standin.h"

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <utility>

#include <sys/syscall.h>
#include <unistd.h>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

namespace standin {
namespace {

const c10::Stream STREAM(c10::Stream::DEFAULT, DEVICE);

struct Queue {
  std::mutex mutex;
  uint64_t queued = 0;
  // Each with its number; they arrive in their order.
  std::deque<std::pair<uint64_t, std::function<void()>>> on_their_way;
};

Queue& queue() {
  static auto* queue = new Queue;
  return *queue;
}

// What the process has asked of the device, as one line of JSON, into the file of CUDA_STANDIN_COUNTS when it ends.
void write_counts() {
  const char* path = std::getenv("CUDA_STANDIN_COUNTS");
  std::FILE* file = path ? std::fopen(path, "w") : nullptr;
  if (!file) return;
  const auto number = [](const std::atomic<int64_t>& count) { return static_cast<long long>(count.load()); };
  const Counts& c = counts();
  std::fprintf(file,
               "{\"kernels\": %lld, \"allocations\": %lld, \"blocking_uploads\": %lld, \"queued_uploads\": %lld, "
               "\"blocking_downloads\": %lld, \"queued_downloads\": %lld, \"waits\": %lld}\n",
               number(c.kernels), number(c.allocations), number(c.blocking_uploads), number(c.queued_uploads),
               number(c.blocking_downloads), number(c.queued_downloads), number(c.waits));
  std::fclose(file);
}

// A process that `exit`s, and below one that leaves by `_exit`, as the product does.
const bool counted = std::atexit(write_counts) == 0;

void check(c10::Device device) {
  TORCH_CHECK(device.is_cuda() && device.index() <= 0, "CUDA error: invalid device ordinal (", device, ")");
}

struct Guard final : c10::impl::DeviceGuardImplInterface {
  static constexpr c10::DeviceType static_type = c10::DeviceType::CUDA;
  c10::DeviceType type() const override { return static_type; }
  c10::Device exchangeDevice(c10::Device device) const override {
    check(device);
    return DEVICE;
  }
  c10::Device getDevice() const override { return DEVICE; }
  void setDevice(c10::Device device) const override { check(device); }
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }

  c10::Stream getStream(c10::Device) const override { return STREAM; }
  c10::Stream getDefaultStream(c10::Device) const override { return STREAM; }
  c10::Stream exchangeStream(c10::Stream) const override { return STREAM; }
  bool queryStream(const c10::Stream&) const override {
    std::lock_guard<std::mutex> lock(queue().mutex);
    return queue().on_their_way.empty();
  }
  void synchronizeStream(const c10::Stream&) const override { synchronizeDevice(0); }
  void synchronizeDevice(const c10::DeviceIndex) const override {
    counts().waits++;
    wait_for(now());
  }

  // An event is the moment that it was recorded at.
  void record(void** event, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {
    if (*event == nullptr) *event = new uint64_t;
    *static_cast<uint64_t*>(*event) = now();
  }
  void destroyEvent(void* event, const c10::DeviceIndex) const noexcept override {
    delete static_cast<uint64_t*>(event);
  }
  // There is but one stream.
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void* event) const override {
    std::lock_guard<std::mutex> lock(queue().mutex);
    return event == nullptr || queue().on_their_way.empty() ||
           queue().on_their_way.front().first > *static_cast<uint64_t*>(event);
  }
  void synchronizeEvent(void* event) const override {
    counts().waits++;
    if (event != nullptr) wait_for(*static_cast<uint64_t*>(event));
  }
};

// LibTorch looks for hooks of this name.
struct CUDAHooks final : at::CUDAHooksInterface {
  explicit CUDAHooks(at::CUDAHooksArgs) {}
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasCUDA() const override { return true; }
  bool hasCuDNN() const override { return false; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  int getNumGPUs() const override { return 1; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  c10::DeviceIndex current_device() const override { return 0; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  void deviceSynchronize(c10::DeviceIndex) const override { Guard().synchronizeDevice(0); }
  c10::Device getDeviceFromPtr(void* address) const override {
    TORCH_CHECK(on_device(address), "the pointer does not belong to the stand-in's device");
    return DEVICE;
  }
  bool isPinnedPtr(const void* address) const override { return is_pinned(address); }
  c10::Allocator* getPinnedMemoryAllocator() const override { return &pinned_allocator(); }
  c10::Allocator* getCUDADeviceAllocator() const override { return &device_allocator(); }
  // Seeded with the CPU's by LibTorch; no kernel draws from it.
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override {
    static auto* generator = new at::Generator(at::detail::createCPUGenerator());
    return *generator;
  }
  at::Generator getNewGenerator(c10::DeviceIndex) const override { return at::detail::createCPUGenerator(); }
};

}  // namespace

Counts& counts() {
  static auto* counts = new Counts{};
  return *counts;
}

uint64_t queue_download(std::function<void()> arrive) {
  std::lock_guard<std::mutex> lock(queue().mutex);
  queue().on_their_way.emplace_back(++queue().queued, std::move(arrive));
  return queue().queued;
}

uint64_t now() {
  std::lock_guard<std::mutex> lock(queue().mutex);
  return queue().queued;
}

void wait_for(uint64_t moment) {
  std::lock_guard<std::mutex> lock(queue().mutex);
  auto& waiting = queue().on_their_way;
  while (!waiting.empty() && waiting.front().first <= moment) {
    waiting.front().second();
    waiting.pop_front();
  }
}

}  // namespace standin

namespace c10::impl {
using standin::Guard;
C10_REGISTER_GUARD_IMPL(CUDA, Guard)
}  // namespace c10::impl

namespace at {
using standin::CUDAHooks;
REGISTER_CUDA_HOOKS(CUDAHooks)
}  // namespace at

extern "C" [[noreturn]] void _exit(int code) {
  standin::write_counts();
  for (;;) syscall(SYS_exit_group, code);
}

// What a test in the same process asks for: kernels, allocations, blocking and queued uploads, blocking and queued downloads,
// waits.
extern "C" void cuda_standin_counts(int64_t (*numbers)[7]) {
  const standin::Counts& c = standin::counts();
  size_t i = 0;
  for (const auto* count : {&c.kernels, &c.allocations, &c.blocking_uploads, &c.queued_uploads, &c.blocking_downloads,
                            &c.queued_downloads, &c.waits}) {
    (*numbers)[i++] = count->load();
  }
}
