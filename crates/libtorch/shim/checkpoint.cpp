// Gradient checkpointing: a node of the autograd graph that computes its part of the graph when the backward pass
// needs it. The Rust side, with the documentation, is src/checkpoint.rs.
//
// torch/csrc/autograd/custom_function.h would do too, but says nothing that is needed here and takes longer to compile.

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/saved_variable.h>

#include "protect.h"

namespace {

namespace autograd = torch::autograd;
using Tensors = autograd::variable_list;

// Computes exactly so many new outputs from the inputs and returns null, or returns an error's text from `malloc`.
using Run = char* (*)(void* segment, at::Tensor* const* inputs, size_t input_count, at::Tensor** outputs,
                      size_t output_count);

struct Checkpoint : autograd::Node {
  Checkpoint(std::shared_ptr<void> segment, Run run, at::Tensor* const* inputs, size_t input_count,
             size_t output_count)
      : segment_(std::move(segment)), run_(run), output_count_(output_count) {
    for (size_t i = 0; i < input_count; i++) {
      inputs_.emplace_back(*inputs[i], /*is_output=*/false);
      add_next_edge(autograd::impl::gradient_edge(*inputs[i]));
    }
  }

  // Puts output number `index` on the graph, behind this node.
  void follow(at::Tensor& output, size_t index) {
    output = output.detach();
    autograd::impl::set_gradient_edge(output, {getptr(), add_input_metadata(output)});
    on_graph_.push_back(index);
  }

  Tensors apply(Tensors&& gradients) override {
    TORCH_CHECK(!at::GradMode::is_enabled(), "a checkpointed segment has no gradients of gradients");
    const auto* only = autograd::get_current_graph_task_exec_info();
    TORCH_CHECK(!only || only->empty(),
                "a checkpointed segment adds to the gradients of all its parameters: use backward() without a choice");
    const auto defined = [](const at::Tensor& gradient) { return gradient.defined(); };
    if (std::none_of(gradients.begin(), gradients.end(), defined)) return Tensors(num_outputs());
    auto [segment, inputs] = unpack();
    auto outputs = recompute(segment.get(), inputs);
    Tensors roots, seeds;
    for (size_t i = 0; i < on_graph_.size(); i++) {
      if (!gradients[i].defined()) continue;
      roots.push_back(outputs[on_graph_[i]]);
      seeds.push_back(std::move(gradients[i]));
    }
    outputs.clear();
    autograd::backward(roots, seeds);
    Tensors of_inputs;
    for (const at::Tensor& input : inputs) of_inputs.push_back(input.grad());
    return of_inputs;
  }

  void release_variables() override {
    std::lock_guard<std::mutex> lock(mutex_);
    segment_.reset();
    inputs_.clear();
  }

 private:
  // The segment, and its inputs cut off from the graph that they came from.
  std::pair<std::shared_ptr<void>, Tensors> unpack() {
    std::lock_guard<std::mutex> lock(mutex_);
    TORCH_CHECK(segment_, autograd::ERR_BACKWARD_TWICE);
    Tensors inputs;
    for (const auto& saved : inputs_) {
      const at::Tensor input = saved.unpack();
      inputs.push_back(input.detach().set_requires_grad(input.requires_grad()));
    }
    return {segment_, std::move(inputs)};
  }

  Tensors recompute(void* segment, Tensors& inputs) {
    std::vector<at::Tensor*> in, out(output_count_);
    for (at::Tensor& input : inputs) in.push_back(&input);
    Tensors outputs(output_count_);
    {
      at::AutoGradMode with_graph(true);
      const std::unique_ptr<char, decltype(&free)> error(run_(segment, in.data(), in.size(), out.data(), out.size()),
                                                         free);
      TORCH_CHECK(!error, error.get());
    }
    for (size_t i = 0; i < output_count_; i++) {
      outputs[i] = std::move(*out[i]);
      delete out[i];
    }
    return outputs;
  }

  std::shared_ptr<void> segment_;
  Run run_;
  std::vector<autograd::SavedVariable> inputs_;
  size_t output_count_;
  // The outputs that have gradients.
  std::vector<size_t> on_graph_;
};

}  // namespace

extern "C" {

// Replaces the outputs that require gradients by ones whose gradients come from running the segment again. Takes the
// segment over, even when it fails: `drop` is called once, when nothing needs it any more.
char* shim_checkpoint(at::Tensor* const* inputs, size_t input_count, at::Tensor* const* outputs, size_t output_count,
                      void* segment, Run run, void (*drop)(void*)) {
  return protect([&] {
    std::shared_ptr<void> owned(segment, drop);
    const std::shared_ptr<Checkpoint> node(new Checkpoint(std::move(owned), run, inputs, input_count, output_count),
                                           autograd::deleteNode);
    for (size_t i = 0; i < output_count; i++) {
      if (outputs[i]->requires_grad()) node->follow(*outputs[i], i);
    }
  });
}

}  // extern "C"
