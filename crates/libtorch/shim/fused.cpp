// Several element-wise operations and sums in one walk through memory, forward and backward, for f32 and bf16 on a CPU. The
// Rust side, with the documentation, is src/fused.rs. Everything is computed in f32, whatever the dtype of the input.
//
// What a row needs is in rows.cpp; here are the operators, and their nodes of the autograd graph.

#include <algorithm>
#include <cmath>
#include <mutex>
#include <utility>
#include <vector>

#include <ATen/Parallel.h>
#include <ATen/TensorIterator.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>

#include "protect.h"
#include "rows.h"

namespace {

namespace autograd = torch::autograd;
using Tensors = autograd::variable_list;

// Fewer numbers than these are not worth a second thread.
constexpr int64_t FEW = 1 << 15;

// Calls `work` for each number below `count`, on LibTorch's threads. Its own `parallel_for` is compiled into its callers, who
// would have to be linked with the same OpenMP; its iterators bring theirs along.
template <typename F>
void parallel(int64_t count, int64_t numbers, const F& work) {
  if (numbers < FEW || count < 2 || at::get_num_threads() == 1 || at::in_parallel_region()) {
    for (int64_t i = 0; i < count; i++) work(i);
    return;
  }
  at::Tensor each = at::empty({count}, at::kByte);
  auto iterator = at::TensorIterator::nullary_op(each);
  const char* start = static_cast<const char*>(each.data_ptr());
  iterator.for_each(
      [&](char** data, const int64_t*, int64_t size) {
        for (int64_t i = data[0] - start, end = i + size; i < end; i++) work(i);
      },
      /*grain_size=*/1);
}

// Some rows of a tensor as f32: where they lie, or in a copy.
class Rows {
 public:
  explicit Rows(const at::Tensor& tensor)
      : wide_(tensor.scalar_type() == at::kFloat), data_(tensor.data_ptr()) {}

  // `count` numbers from `start` on; valid until the next call on this thread with this `buffer`.
  const float* read(int64_t start, int64_t count, std::vector<float>& buffer) const {
    if (wide_) return static_cast<const float*>(data_) + start;
    buffer.resize(std::max<size_t>(buffer.size(), count));
    rows::widen(static_cast<const uint16_t*>(data_) + start, buffer.data(), count);
    return buffer.data();
  }

  // Where to put such numbers, to be followed by `written`.
  float* place(int64_t start, int64_t count, std::vector<float>& buffer) const {
    if (wide_) return static_cast<float*>(data_) + start;
    buffer.resize(std::max<size_t>(buffer.size(), count));
    return buffer.data();
  }

  void written(const float* from, int64_t start, int64_t count) const {
    if (!wide_) rows::narrow(from, static_cast<uint16_t*>(data_) + start, count);
  }

 private:
  bool wide_;
  void* data_;
};

thread_local std::vector<float> first_buffer, second_buffer, third_buffer;

at::Tensor like(const at::Tensor& tensor) {
  return at::empty_like(tensor, at::MemoryFormat::Contiguous);
}

struct Sizes {
  int64_t samples, channels, groups, pixels;

  Sizes(const at::Tensor& xs, int64_t groups)
      : samples(xs.size(0)), channels(xs.size(1)), groups(groups), pixels(xs.numel() / (samples * channels)) {}

  int64_t in_group() const { return channels / groups; }
  int64_t numbers() const { return in_group() * pixels; }
};

// A node of the graph whose gradients have none.
struct Fused : autograd::Node {
  Tensors apply(Tensors&& gradients) override {
    TORCH_CHECK(!at::GradMode::is_enabled(), "a fused operation has no gradients of gradients");
    if (!gradients[0].defined()) return Tensors(num_outputs());
    std::lock_guard<std::mutex> lock(mutex_);
    return backward(gradients[0]);
  }

  virtual Tensors backward(const at::Tensor& gradient) = 0;
};

struct GroupNorm : Fused {
  autograd::SavedVariable xs, weight, bias;
  std::vector<float> means, rstds;
  int64_t groups;
  bool silu;

  void release_variables() override {
    std::lock_guard<std::mutex> lock(mutex_);
    for (auto* saved : {&xs, &weight, &bias}) saved->reset_data();
  }

  // With n = (x - mean) · rstd and g the gradient by z = n · w + b, that by x is rstd · (g w - mean(g w) - n · mean(g w n)), the
  // means being those of the group; that by w the sum of g n, and by b of g.
  Tensors backward(const at::Tensor& gradient_in) override {
    const at::Tensor x = xs.unpack().contiguous(), w = weight.unpack().contiguous(), b = bias.unpack().contiguous();
    const at::Tensor gradient = gradient_in.contiguous();
    const Sizes sizes(x, groups);
    const at::Tensor to = task_should_compute_output(0) ? like(x) : at::Tensor();
    std::vector<rows::Sums> sums(sizes.samples * sizes.channels);
    const float *of_w = w.const_data_ptr<float>(), *of_b = b.const_data_ptr<float>();
    const int64_t pixels = sizes.pixels, in_group = sizes.in_group(), numbers = sizes.numbers();
    parallel(sizes.samples * groups, x.numel(), [&](int64_t i) {
      const int64_t start = i * numbers, channel = i % groups * in_group;
      const float mean = means[i], rstd = rstds[i];
      const float* from = Rows(x).read(start, numbers, first_buffer);
      const float* given = Rows(gradient).read(start, numbers, second_buffer);
      const float* by_z = given;
      if (silu) {
        third_buffer.resize(std::max<size_t>(third_buffer.size(), numbers));
        for (int64_t c = 0; c < in_group; c++) {
          const int64_t at = c * pixels;
          const rows::Affine affine{mean, rstd * of_w[channel + c], of_b[channel + c]};
          rows::silu_backward(from + at, given + at, third_buffer.data() + at, pixels, affine);
        }
        by_z = third_buffer.data();
      }
      double plain = 0, normed = 0;
      for (int64_t c = 0; c < in_group; c++) {
        const auto of_channel = rows::sums(by_z + c * pixels, from + c * pixels, pixels, mean, rstd);
        sums[i * in_group + c] = of_channel;
        plain += of_channel.plain * of_w[channel + c];
        normed += of_channel.normed * of_w[channel + c];
      }
      if (!to.defined()) return;
      const double by_x = -rstd * rstd * normed / numbers;
      const double constant = -rstd * plain / numbers - by_x * mean;
      // In place of the gradient, where that is in a buffer.
      float* result = Rows(to).place(start, numbers, second_buffer);
      for (int64_t c = 0; c < in_group; c++) {
        const int64_t at = c * pixels;
        rows::combine(by_z + at, from + at, result + at, pixels, rstd * of_w[channel + c], by_x, constant);
      }
      Rows(to).written(result, start, numbers);
    });
    Tensors all{to, at::Tensor(), at::Tensor()};
    for (const int64_t which : {1, 2}) {
      if (!task_should_compute_output(which)) continue;
      all[which] = at::empty({sizes.channels}, at::kFloat);
      float* out = all[which].mutable_data_ptr<float>();
      for (int64_t c = 0; c < sizes.channels; c++) {
        double sum = 0;
        for (int64_t n = 0; n < sizes.samples; n++) {
          const auto& part = sums[n * sizes.channels + c];
          sum += which == 1 ? part.normed : part.plain;
        }
        out[c] = static_cast<float>(sum);
      }
    }
    return all;
  }
};

struct Geglu : Fused {
  autograd::SavedVariable both;

  void release_variables() override {
    std::lock_guard<std::mutex> lock(mutex_);
    both.reset_data();
  }

  Tensors backward(const at::Tensor& gradient_in) override {
    const at::Tensor x = both.unpack().contiguous(), gradient = gradient_in.contiguous(), to = like(x);
    const int64_t width = x.size(-1) / 2;
    parallel(x.numel() / (2 * width), x.numel(), [&](int64_t row) {
      const float* from = Rows(x).read(row * 2 * width, 2 * width, first_buffer);
      const float* given = Rows(gradient).read(row * width, width, second_buffer);
      float* result = Rows(to).place(row * 2 * width, 2 * width, third_buffer);
      rows::geglu_backward(from, from + width, given, result, result + width, width);
      Rows(to).written(result, row * 2 * width, 2 * width);
    });
    return {to};
  }
};

struct Softmax : Fused {
  autograd::SavedVariable probabilities;
  float scale;

  void release_variables() override {
    std::lock_guard<std::mutex> lock(mutex_);
    probabilities.reset_data();
  }

  Tensors backward(const at::Tensor& gradient_in) override {
    const at::Tensor y = probabilities.unpack(getptr()), gradient = gradient_in.contiguous(), to = like(y);
    const int64_t width = y.size(-1);
    parallel(y.numel() / width, y.numel(), [&](int64_t row) {
      const float* from = Rows(y).read(row * width, width, first_buffer);
      const float* given = Rows(gradient).read(row * width, width, second_buffer);
      float* result = Rows(to).place(row * width, width, second_buffer);
      rows::softmax_backward(from, given, result, width, scale);
      Rows(to).written(result, row * width, width);
    });
    return {to};
  }
};

// The node for an output of these inputs, if gradients are wanted.
template <typename Node>
std::shared_ptr<Node> node_of(std::initializer_list<at::Tensor> inputs) {
  const auto wants = [](const at::Tensor& input) { return input.requires_grad(); };
  if (!at::GradMode::is_enabled() || std::none_of(inputs.begin(), inputs.end(), wants)) return nullptr;
  const std::shared_ptr<Node> node(new Node(), autograd::deleteNode);
  for (const at::Tensor& input : inputs) node->add_next_edge(autograd::impl::gradient_edge(input));
  return node;
}

void check_dtype(const at::Tensor& tensor) {
  TORCH_CHECK(tensor.is_cpu() && (tensor.scalar_type() == at::kFloat || tensor.scalar_type() == at::kBFloat16),
              "expected Float or BFloat16 on the CPU, not ", tensor.scalar_type(), " on ", tensor.device());
}

}  // namespace

extern "C" {

// `xs` [samples, channels, ...] normalised over groups of channels, scaled by `weight` and `bias`, f32 [channels], and, if
// `silu`, z · σ(z) of the result z.
char* shim_group_norm(const at::Tensor* xs, int64_t groups, const at::Tensor* weight, const at::Tensor* bias,
                      double eps, bool silu, at::Tensor** normed) {
  return protect([&] {
    check_dtype(*xs);
    TORCH_CHECK(xs->dim() >= 2 && xs->numel() > 0 && groups > 0 && xs->size(1) % groups == 0, "no ", groups,
                " groups of channels can be made of shape ", xs->sizes());
    for (const at::Tensor* of_channels : {weight, bias}) {
      TORCH_CHECK(of_channels->is_cpu() && of_channels->scalar_type() == at::kFloat &&
                      of_channels->sizes() == xs->sizes().slice(1, 1),
                  "weight or bias is not Float of shape [", xs->size(1), "] on the CPU");
    }
    const auto node = node_of<GroupNorm>({*xs, *weight, *bias});
    at::Tensor to;
    {
      at::NoGradGuard no_grad;
      const at::Tensor x = xs->contiguous(), w = weight->contiguous(), b = bias->contiguous();
      to = like(x);
      const Sizes sizes(x, groups);
      const float *of_w = w.const_data_ptr<float>(), *of_b = b.const_data_ptr<float>();
      const int64_t pixels = sizes.pixels, in_group = sizes.in_group(), numbers = sizes.numbers();
      if (node) {
        node->means.resize(sizes.samples * groups);
        node->rstds.resize(sizes.samples * groups);
      }
      parallel(sizes.samples * groups, x.numel(), [&](int64_t i) {
        const float* from = Rows(x).read(i * numbers, numbers, first_buffer);
        float* result = Rows(to).place(i * numbers, numbers, first_buffer);
        const auto moments = rows::moments(from, numbers);
        const float mean = moments.mean, rstd = 1.0 / std::sqrt(moments.squares / numbers + eps);
        if (node) {
          node->means[i] = mean;
          node->rstds[i] = rstd;
        }
        const auto function = silu ? rows::affine_silu : rows::affine;
        for (int64_t c = 0; c < in_group; c++) {
          const int64_t channel = i % groups * in_group + c;
          function(from + c * pixels, result + c * pixels, pixels, {mean, rstd * of_w[channel], of_b[channel]});
        }
        Rows(to).written(result, i * numbers, numbers);
      });
    }
    if (node) {
      node->xs = autograd::SavedVariable(*xs, false);
      node->weight = autograd::SavedVariable(*weight, false);
      node->bias = autograd::SavedVariable(*bias, false);
      node->groups = groups;
      node->silu = silu;
      autograd::set_history(to, node);
    }
    *normed = new at::Tensor(std::move(to));
  });
}

// a · gelu(b) of `both` [..., 2 d], whose first half is a.
char* shim_geglu(const at::Tensor* both, at::Tensor** gated) {
  return protect([&] {
    check_dtype(*both);
    TORCH_CHECK(both->dim() >= 1 && both->numel() > 0 && both->size(-1) % 2 == 0, "shape ", both->sizes(),
                " has no two halves");
    const auto node = node_of<Geglu>({*both});
    at::Tensor to;
    {
      at::NoGradGuard no_grad;
      const at::Tensor x = both->contiguous();
      const int64_t width = x.size(-1) / 2;
      auto shape = x.sizes().vec();
      shape.back() = width;
      to = at::empty(shape, x.options());
      parallel(x.numel() / (2 * width), x.numel(), [&](int64_t row) {
        const float* from = Rows(x).read(row * 2 * width, 2 * width, first_buffer);
        float* result = Rows(to).place(row * width, width, second_buffer);
        rows::geglu(from, from + width, result, width);
        Rows(to).written(result, row * width, width);
      });
    }
    if (node) {
      node->both = autograd::SavedVariable(*both, false);
      autograd::set_history(to, node);
    }
    *gated = new at::Tensor(std::move(to));
  });
}

// softmax(x · scale) over the last dimension of `xs`.
char* shim_softmax(const at::Tensor* xs, double scale, at::Tensor** probabilities) {
  return protect([&] {
    check_dtype(*xs);
    TORCH_CHECK(xs->dim() >= 1 && xs->numel() > 0, "shape ", xs->sizes(), " has no rows");
    const auto node = node_of<Softmax>({*xs});
    at::Tensor to;
    {
      at::NoGradGuard no_grad;
      const at::Tensor x = xs->contiguous();
      to = like(x);
      const int64_t width = x.size(-1);
      parallel(x.numel() / width, x.numel(), [&](int64_t row) {
        const float* from = Rows(x).read(row * width, width, first_buffer);
        float* result = Rows(to).place(row * width, width, first_buffer);
        rows::softmax(from, result, width, static_cast<float>(scale));
        Rows(to).written(result, row * width, width);
      });
    }
    if (node) {
      node->scale = static_cast<float>(scale);
      autograd::set_history(to, node);
      node->probabilities = autograd::SavedVariable(to, /*is_output=*/true);
    }
    *probabilities = new at::Tensor(std::move(to));
  });
}

}  // extern "C"
