// Processes that compute on CPUs together, by LibTorch's own c10d: a store of keys that they share, and Gloo. The Rust
// side, with the documentation, is src/processes.rs.

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

// The header is empty without it.
#define USE_C10D_GLOO
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "group.h"
#include "protect.h"

namespace {

using Milliseconds = std::chrono::milliseconds;
using SharedStore = c10::intrusive_ptr<c10d::Store>;

struct GlooPending : Pending {
  explicit GlooPending(c10::intrusive_ptr<c10d::Work> work) : work_(std::move(work)) {}

  bool wait(int64_t milliseconds) override {
    if (!work_->isCompleted()) {
      try {
        work_->wait(Milliseconds(milliseconds));
      } catch (...) {
        // Out of time.
        if (!work_->isCompleted()) return false;
        throw;
      }
    }
    return work_->wait();
  }

 private:
  c10::intrusive_ptr<c10d::Work> work_;
};

struct GlooGroup : Group {
  GlooGroup(const SharedStore& store, int rank, int size, Milliseconds timeout)
      : gloo_(c10::make_intrusive<c10d::ProcessGroupGloo>(store, rank, size,
                                                          c10d::ProcessGroupGloo::Options::create_default(timeout))) {}

  std::shared_ptr<Pending> sum(at::Tensor tensor) override {
    std::vector<at::Tensor> tensors{std::move(tensor)};
    return std::make_shared<GlooPending>(gloo_->allreduce(tensors));
  }

  std::shared_ptr<Pending> broadcast(at::Tensor tensor, int from) override {
    std::vector<at::Tensor> tensors{std::move(tensor)};
    c10d::BroadcastOptions options;
    options.rootRank = from;
    return std::make_shared<GlooPending>(gloo_->broadcast(tensors, options));
  }

 private:
  c10::intrusive_ptr<c10d::ProcessGroupGloo> gloo_;
};

}  // namespace

extern "C" {

// Serves the store at `host`:`port`, or connects to who does, within the timeout, which later calls have too.
char* shim_store_new(const char* host, uint16_t port, bool serves, int64_t milliseconds, SharedStore** store) {
  return protect([&] {
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = serves;
    options.waitWorkers = false;
    options.timeout = Milliseconds(milliseconds);
    *store = new SharedStore(c10::make_intrusive<c10d::TCPStore>(host, options));
  });
}

void shim_store_free(SharedStore* store) {
  delete store;
}

char* shim_store_set(const SharedStore* store, const char* key, const uint8_t* value, size_t length) {
  return protect([&] {
    (*store)->set(key, std::vector<uint8_t>(value, value + length));
    // c10d does not wait until the server has it; what is asked afterwards is answered afterwards.
    (*store)->check({key});
  });
}

// Null where there is no such key; else from `malloc`.
char* shim_store_get(const SharedStore* store, const char* key, uint8_t** value, size_t* length) {
  return protect([&] {
    *value = nullptr;
    if (!(*store)->check({key})) return;
    const std::vector<uint8_t> found = (*store)->get(key);
    *length = found.size();
    *value = static_cast<uint8_t*>(malloc(found.size() + 1));
    TORCH_CHECK(*value, "out of memory");
    memcpy(*value, found.data(), found.size());
  });
}

// Adds to the number at a key, which is 0 at first; gives the sum.
char* shim_store_add(const SharedStore* store, const char* key, int64_t by, int64_t* sum) {
  return protect([&] { *sum = (*store)->add(key, by); });
}

char* shim_gloo_new(const SharedStore* store, int rank, int size, int64_t milliseconds,
                    std::shared_ptr<Group>** group) {
  return protect([&] {
    *group = new std::shared_ptr<Group>(std::make_shared<GlooGroup>(*store, rank, size, Milliseconds(milliseconds)));
  });
}

void shim_group_free(std::shared_ptr<Group>* group) {
  delete group;
}

char* shim_group_sum(const std::shared_ptr<Group>* group, const at::Tensor* tensor,
                     std::shared_ptr<Pending>** pending) {
  return protect([&] { *pending = new std::shared_ptr<Pending>((*group)->sum(*tensor)); });
}

char* shim_group_broadcast(const std::shared_ptr<Group>* group, const at::Tensor* tensor, int from,
                           std::shared_ptr<Pending>** pending) {
  return protect([&] { *pending = new std::shared_ptr<Pending>((*group)->broadcast(*tensor, from)); });
}

char* shim_pending_wait(const std::shared_ptr<Pending>* pending, int64_t milliseconds, bool* ended) {
  return protect([&] { *ended = (*pending)->wait(milliseconds); });
}

void shim_pending_free(std::shared_ptr<Pending>* pending) {
  delete pending;
}

}  // extern "C"
