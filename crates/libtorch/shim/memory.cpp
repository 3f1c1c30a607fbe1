// Freed blocks of memory, kept for later tensors. The Rust side, with the documentation, is src/memory.rs.
//
// A step makes some thousand tensors, each of a size that the step before had too. glibc looks for each aligned block anew,
// and puts it together with its neighbours when it is freed.

#include <array>
#include <cstdint>
#include <limits>
#include <mutex>
#include <vector>

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>

#include "protect.h"

namespace {

// What stands before each block, which keeps the block aligned: the number of its size, or that it has none.
constexpr size_t HEADER = 64;
constexpr size_t NONE = std::numeric_limits<size_t>::max();
// Larger ones are rare, and glibc divides them better among tensors of other sizes.
constexpr size_t LARGEST = 4 << 20;
// Sizes are multiples of 64 up to 512 bytes, and then eight between a power of two and the next.
constexpr size_t SIZES = 8 + 8 * 13;

struct Size {
  size_t number;
  size_t bytes;
};

// The smallest size that has room for so many bytes, at most LARGEST.
Size size_for(size_t bytes) {
  if (bytes <= 512) {
    const size_t number = (bytes + 63) / 64;
    return {number - 1, 64 * number};
  }
  const size_t octave = 63 - __builtin_clzll(bytes - 1), step = size_t{1} << (octave - 3);
  const size_t steps = (bytes + step - 1) / step;
  return {8 + 8 * (octave - 9) + steps - 9, steps * step};
}

class Keeper final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    void* data = bytes == 0 ? nullptr : take(bytes);
    return {data, data, give, c10::Device(c10::DeviceType::CPU)};
  }

  c10::DeleterFnPtr raw_deleter() const override { return give; }

  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }

  // Keeps at most so many bytes from now on.
  void limit(size_t bytes) {
    std::lock_guard<std::mutex> lock(mutex_);
    limit_ = bytes;
    if (kept_ > limit_) release_locked();
  }

  void release() {
    std::lock_guard<std::mutex> lock(mutex_);
    release_locked();
  }

 private:
  void* take(size_t bytes) {
    TORCH_CHECK(bytes <= NONE - HEADER, "DefaultCPUAllocator: can't allocate memory: you tried to allocate ", bytes, " bytes");
    size_t number = NONE, all = bytes + HEADER;
    if (all <= LARGEST) {
      const Size size = size_for(all);
      number = size.number, all = size.bytes;
      std::lock_guard<std::mutex> lock(mutex_);
      auto& blocks = blocks_[number];
      if (!blocks.empty()) {
        char* block = blocks.back();
        blocks.pop_back();
        kept_ -= all;
        return block + HEADER;
      }
    }
    char* block = fresh(all);
    *reinterpret_cast<Size*>(block) = {number, all};
    return block + HEADER;
  }

  char* fresh(size_t bytes) {
    try {
      return static_cast<char*>(c10::alloc_cpu(bytes));
    } catch (const c10::Error&) {
      // What is kept may be what is missing.
      release();
      return static_cast<char*>(c10::alloc_cpu(bytes));
    }
  }

  static void give(void* data);

  void put(char* block) {
    const Size size = *reinterpret_cast<Size*>(block);
    if (size.number != NONE) {
      std::lock_guard<std::mutex> lock(mutex_);
      if (kept_ + size.bytes <= limit_) {
        blocks_[size.number].push_back(block);
        kept_ += size.bytes;
        return;
      }
    }
    c10::free_cpu(block);
  }

  void release_locked() {
    for (auto& blocks : blocks_) {
      for (char* block : blocks) c10::free_cpu(block);
      blocks.clear();
    }
    kept_ = 0;
  }

  std::mutex mutex_;
  std::array<std::vector<char*>, SIZES> blocks_;
  size_t limit_ = 0, kept_ = 0;
};

// Never destroyed: tensors may be freed until the very end of the process.
Keeper& keeper() {
  static Keeper& keeper = *new Keeper;
  return keeper;
}

void Keeper::give(void* data) {
  if (data != nullptr) keeper().put(static_cast<char*>(data) - HEADER);
}

}  // namespace

extern "C" {

// Keeps at most so many bytes of freed tensors on the CPU. To be called before there are any.
char* shim_keep_freed(size_t bytes) {
  return protect([&] {
    keeper().limit(bytes);
    c10::SetCPUAllocator(&keeper());
  });
}

char* shim_release_kept() {
  return protect([&] { keeper().release(); });
}

}  // extern "C"
