// The gradients of several processes added up in buckets while the backward pass still computes others. The Rust side,
// with the documentation, is src/reducer.rs.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <mutex>
#include <tuple>
#include <utility>
#include <vector>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include "group.h"
#include "protect.h"

namespace {

// In elements, so that kernels find gradients aligned.
constexpr int64_t ALIGNED = 64;
constexpr size_t NONE = SIZE_MAX;

struct Bucket {
  std::vector<size_t> members;
  // Where each one's gradient begins.
  std::vector<int64_t> offsets;
  int64_t length = 0;
  // How many gradients are not complete.
  size_t missing = 0;
  std::shared_ptr<Pending> pending;
};

class Reducer : public std::enable_shared_from_this<Reducer> {
 public:
  Reducer(std::shared_ptr<Group> group, std::vector<at::Tensor> parameters, int64_t bucket_length)
      : group_(std::move(group)),
        parameters_(std::move(parameters)),
        bucket_length_(bucket_length),
        bucket_of_(parameters_.size(), NONE),
        expected_(parameters_.size()),
        added_(parameters_.size()),
        last_(parameters_.size()) {}

  // A parameter's gradient may be added to several times in one pass, by segments that are computed again.
  struct Hook : torch::autograd::PostAccumulateGradHook {
    Hook(std::weak_ptr<Reducer> reducer, size_t index) : reducer_(std::move(reducer)), index_(index) {}
    void operator()(const at::Tensor&) override {
      if (const auto reducer = reducer_.lock()) reducer->added(index_);
    }

   private:
    std::weak_ptr<Reducer> reducer_;
    size_t index_;
  };

  void watch() {
    for (size_t i = 0; i < parameters_.size(); i++) {
      torch::autograd::impl::set_post_acc_grad_hooks(parameters_[i], std::make_unique<Hook>(weak_from_this(), i));
    }
  }

  ~Reducer() {
    for (const at::Tensor& parameter : parameters_) {
      torch::autograd::impl::set_post_acc_grad_hooks(parameter, nullptr);
    }
  }

  void begin() {
    std::lock_guard<std::mutex> lock(mutex_);
    std::fill(added_.begin(), added_.end(), 0);
    count_ = 0;
    launched_ = 0;
    beside_ = 0;
    for (Bucket& bucket : buckets_) {
      bucket.missing = bucket.members.size();
      bucket.pending.reset();
    }
    watching_ = true;
  }

  // The parameters that have gradients, in the order in which these were complete.
  std::vector<int64_t> order() {
    std::lock_guard<std::mutex> lock(mutex_);
    std::vector<int64_t> order;
    for (size_t i = 0; i < parameters_.size(); i++) {
      if (parameters_[i].grad().defined()) order.push_back(static_cast<int64_t>(i));
    }
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return last_[a] < last_[b]; });
    return order;
  }

  // Makes the buckets, after the first pass: how often gradients are added to is now known.
  void arrange(const int64_t* order, size_t count) {
    std::lock_guard<std::mutex> lock(mutex_);
    expected_ = added_;
    buckets_.clear();
    std::fill(bucket_of_.begin(), bucket_of_.end(), NONE);
    for (size_t i = 0; i < count; i++) {
      const auto index = static_cast<size_t>(order[i]);
      const at::Tensor& parameter = parameters_.at(index);
      TORCH_CHECK(parameter.scalar_type() == at::kFloat && parameter.is_non_overlapping_and_dense(),
                  "parameter ", index, " is not f32, or a view with gaps");
      if (buckets_.empty() || buckets_.back().length >= bucket_length_) buckets_.emplace_back();
      Bucket& bucket = buckets_.back();
      bucket.members.push_back(index);
      bucket.offsets.push_back(bucket.length);
      bucket.length += (parameter.numel() + ALIGNED - 1) / ALIGNED * ALIGNED;
      bucket.missing = bucket.members.size();
      bucket_of_[index] = buckets_.size() - 1;
    }
  }

  // Begins with all that the backward pass has left.
  void launch_rest() {
    std::lock_guard<std::mutex> lock(mutex_);
    watching_ = false;
    while (launched_ < buckets_.size()) launch(buckets_[launched_++]);
  }

  bool wait(int64_t milliseconds) {
    for (Bucket& bucket : buckets_) {
      if (bucket.pending && !bucket.pending->wait(milliseconds)) return false;
      bucket.pending.reset();
    }
    return true;
  }

  // How many buckets were begun with during the last backward pass, and how many there are.
  std::pair<size_t, size_t> beside() const { return {beside_, buckets_.size()}; }

 private:
  void added(size_t index) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!watching_) return;
    last_[index] = ++count_;
    added_[index]++;
    if (buckets_.empty()) return;
    const size_t number = bucket_of_[index];
    TORCH_CHECK(number != NONE && number >= launched_, "parameter ", index,
                " has more gradients than in the first step, and some of them are added up already");
    if (added_[index] != expected_[index]) return;
    buckets_[number].missing--;
    // In one order, whatever is complete first: all processes must ask for the same.
    while (launched_ < buckets_.size() && buckets_[launched_].missing == 0) launch(buckets_[launched_++]);
    beside_ = launched_;
  }

  // The gradients become parts of the bucket.
  void launch(Bucket& bucket) {
    at::NoGradGuard no_grad;
    const at::Tensor flat = at::zeros({bucket.length}, parameters_[bucket.members[0]].options().requires_grad(false));
    for (size_t i = 0; i < bucket.members.size(); i++) {
      at::Tensor& parameter = parameters_[bucket.members[i]];
      const at::Tensor part = flat.as_strided(parameter.sizes(), parameter.strides(), bucket.offsets[i]);
      // One without a gradient here has one elsewhere.
      if (parameter.grad().defined()) part.copy_(parameter.grad());
      parameter.mutable_grad() = part;
    }
    bucket.pending = group_->sum(flat);
  }

  std::shared_ptr<Group> group_;
  std::vector<at::Tensor> parameters_;
  int64_t bucket_length_;
  std::vector<Bucket> buckets_;
  std::vector<size_t> bucket_of_;
  // How often each gradient was added to in the first pass, and in this one.
  std::vector<size_t> expected_, added_;
  // When it was last.
  std::vector<size_t> last_;
  size_t count_ = 0, launched_ = 0, beside_ = 0;
  bool watching_ = false;
  // A GPU's backward pass has a thread of its own.
  std::mutex mutex_;
};

}  // namespace

extern "C" {

char* shim_reducer_new(const std::shared_ptr<Group>* group, at::Tensor* const* parameters, size_t count,
                       int64_t bucket_length, std::shared_ptr<Reducer>** reducer) {
  return protect([&] {
    std::vector<at::Tensor> list;
    for (size_t i = 0; i < count; i++) list.push_back(*parameters[i]);
    auto made = std::make_shared<Reducer>(*group, std::move(list), bucket_length);
    made->watch();
    *reducer = new std::shared_ptr<Reducer>(std::move(made));
  });
}

void shim_reducer_free(std::shared_ptr<Reducer>* reducer) {
  delete reducer;
}

char* shim_reducer_begin(const std::shared_ptr<Reducer>* reducer) {
  return protect([&] { (*reducer)->begin(); });
}

// Writes the numbers of parameters to `order`, which has room for all, and how many there are.
char* shim_reducer_order(const std::shared_ptr<Reducer>* reducer, int64_t* order, size_t* count) {
  return protect([&] {
    const std::vector<int64_t> found = (*reducer)->order();
    std::copy(found.begin(), found.end(), order);
    *count = found.size();
  });
}

char* shim_reducer_arrange(const std::shared_ptr<Reducer>* reducer, const int64_t* order, size_t count) {
  return protect([&] { (*reducer)->arrange(order, count); });
}

char* shim_reducer_launch_rest(const std::shared_ptr<Reducer>* reducer) {
  return protect([&] { (*reducer)->launch_rest(); });
}

char* shim_reducer_wait(const std::shared_ptr<Reducer>* reducer, int64_t milliseconds, bool* ended) {
  return protect([&] { *ended = (*reducer)->wait(milliseconds); });
}

void shim_reducer_beside(const std::shared_ptr<Reducer>* reducer, size_t* beside, size_t* all) {
  std::tie(*beside, *all) = (*reducer)->beside();
}

}  // extern "C"
