// Processes that compute on GPUs together, by NCCL. The Rust side, with the documentation, is src/processes.rs.
//
// NCCL is opened at run time, as everything of CUDA is, and called by its C interface (nccl.h of NCCL 2), so that this
// links and compiles without either.

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include <dlfcn.h>

#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "group.h"
#include "protect.h"

namespace {

constexpr size_t ID_BYTES = 128;
struct Id {
  char bytes[ID_BYTES];
};
using Comm = void*;
using Stream = void*;
// ncclSuccess and ncclInProgress of ncclResult_t, ncclInt64 and ncclFloat32 of ncclDataType_t, ncclSum of ncclRedOp_t.
constexpr int SUCCESS = 0, IN_PROGRESS = 7, INT64 = 4, FLOAT32 = 7, SUM = 0;

struct Nccl {
  int (*get_unique_id)(Id*);
  int (*comm_init_rank)(Comm*, int size, Id, int rank);
  int (*all_reduce)(const void*, void*, size_t, int type, int op, Comm, Stream);
  int (*broadcast)(const void*, void*, size_t, int type, int root, Comm, Stream);
  int (*comm_get_async_error)(Comm, int*);
  int (*comm_abort)(Comm);
  const char* (*get_error_string)(int);

  // LibTorch's CUDA library has it open where it was built with NCCL.
  static const Nccl& get() {
    static const Nccl nccl;
    return nccl;
  }

  void check(int result, const char* what) const {
    TORCH_CHECK(result == SUCCESS || result == IN_PROGRESS, "NCCL: ", what, ": ", get_error_string(result));
  }

 private:
  Nccl() {
    void* library = dlopen("libnccl.so.2", RTLD_LAZY | RTLD_GLOBAL);
    TORCH_CHECK(library, "NCCL cannot be opened (", dlerror(), "); several processes on GPUs need libnccl.so.2");
    const auto find = [&](auto& function, const char* name) {
      void* found = dlsym(library, name);
      TORCH_CHECK(found, "this NCCL has no ", name);
      memcpy(&function, &found, sizeof found);
    };
    find(get_unique_id, "ncclGetUniqueId");
    find(comm_init_rank, "ncclCommInitRank");
    find(all_reduce, "ncclAllReduce");
    find(broadcast, "ncclBroadcast");
    find(comm_get_async_error, "ncclCommGetAsyncError");
    find(comm_abort, "ncclCommAbort");
    find(get_error_string, "ncclGetErrorString");
  }
};

class NcclGroup : public Group, public std::enable_shared_from_this<NcclGroup> {
 public:
  NcclGroup(const Id& id, int rank, int size, c10::Device device)
      : guard_(c10::DeviceType::CUDA), device_(device), stream_(guard_.getStreamFromGlobalPool(device, false)) {
    guard_.setDevice(device);
    Nccl::get().check(Nccl::get().comm_init_rank(&comm_, size, id, rank), "ncclCommInitRank");
  }

  ~NcclGroup() override {
    if (comm_) Nccl::get().comm_abort(comm_);
  }

  std::shared_ptr<Pending> sum(at::Tensor tensor) override {
    return begin(std::move(tensor), [&](void* data, size_t count, int type, Stream stream) {
      return Nccl::get().all_reduce(data, data, count, type, SUM, comm_, stream);
    });
  }

  std::shared_ptr<Pending> broadcast(at::Tensor tensor, int from) override {
    return begin(std::move(tensor), [&](void* data, size_t count, int type, Stream stream) {
      return Nccl::get().broadcast(data, data, count, type, from, comm_, stream);
    });
  }

 private:
  // Waited for by the host, which looks whether NCCL has seen an error: a stream that waited for a process that is gone
  // would never end. Whoever works with the tensor afterwards does so on a stream that has waited, too.
  struct NcclPending : Pending {
    NcclPending(std::shared_ptr<NcclGroup> group, at::Tensor tensor, c10::Event done)
        : group_(std::move(group)), tensor_(std::move(tensor)), done_(std::move(done)) {}

    bool wait(int64_t milliseconds) override {
      const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(milliseconds);
      while (!done_.query()) {
        int error = SUCCESS;
        Nccl::get().check(Nccl::get().comm_get_async_error(group_->comm_, &error), "ncclCommGetAsyncError");
        Nccl::get().check(error, "a process of the group");
        if (std::chrono::steady_clock::now() > until) return false;
        std::this_thread::sleep_for(std::chrono::microseconds(50));
      }
      return true;
    }

   private:
    std::shared_ptr<NcclGroup> group_;
    at::Tensor tensor_;
    c10::Event done_;
  };

  template <typename F>
  std::shared_ptr<Pending> begin(at::Tensor tensor, F operation) {
    TORCH_CHECK(tensor.device() == device_ && tensor.is_contiguous(), "a tensor on ", tensor.device(),
                ", or not contiguous, cannot be shared by processes on ", device_);
    TORCH_CHECK(tensor.scalar_type() == at::kFloat || tensor.scalar_type() == at::kLong, "processes share no ",
                tensor.scalar_type());
    const int type = tensor.scalar_type() == at::kFloat ? FLOAT32 : INT64;
    // What fills the tensor is on the current stream.
    c10::Event filled(c10::DeviceType::CUDA);
    filled.record(guard_.getStream(device_));
    filled.block(stream_);
    const int result =
        operation(tensor.data_ptr(), static_cast<size_t>(tensor.numel()), type, stream_.native_handle());
    Nccl::get().check(result, "an operation");
    c10::Event done(c10::DeviceType::CUDA);
    done.record(stream_);
    return std::make_shared<NcclPending>(shared_from_this(), std::move(tensor), std::move(done));
  }

  c10::impl::VirtualGuardImpl guard_;
  c10::Device device_;
  c10::Stream stream_;
  Comm comm_ = nullptr;
};

}  // namespace

extern "C" {

// Writes ID_BYTES bytes, by which rank 0 invites the others.
char* shim_nccl_id(char* id) {
  return protect([&] {
    Id made;
    Nccl::get().check(Nccl::get().get_unique_id(&made), "ncclGetUniqueId");
    memcpy(id, made.bytes, ID_BYTES);
  });
}

char* shim_nccl_new(const char* id, int rank, int size, int8_t device, std::shared_ptr<Group>** group) {
  return protect([&] {
    Id given;
    memcpy(given.bytes, id, ID_BYTES);
    *group = new std::shared_ptr<Group>(
        std::make_shared<NcclGroup>(given, rank, size, c10::Device(c10::DeviceType::CUDA, device)));
  });
}

}  // extern "C"
