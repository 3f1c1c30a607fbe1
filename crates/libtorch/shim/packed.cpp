// Weights in oneDNN's own layout. The Rust side, with the documentation, is src/packed.rs.
//
// LibTorch makes and takes them by operators that have no functions in C++, for its compiler alone calls them; they are
// looked up by name.

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/List.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/jit_type.h>

#include "protect.h"

namespace {

using Stack = std::vector<c10::IValue>;
using Pair = std::vector<int64_t>;

at::Tensor call(const char* name, Stack stack) {
  const auto op = c10::Dispatcher::singleton().findSchema({std::string("mkldnn::") + name, ""});
  TORCH_CHECK(op && op->schema().arguments().size() == stack.size(), "this LibTorch has no such operator mkldnn::", name);
  op->callBoxed(&stack);
  return stack.front().toTensor();
}

std::optional<at::Tensor> optional(const at::Tensor* tensor) {
  return tensor ? std::optional<at::Tensor>(*tensor) : std::nullopt;
}

// What operators that could end in an activation want to know of it: there is none.
void push_no_activation(Stack& stack) {
  stack.emplace_back("none");
  stack.emplace_back(c10::impl::GenericList(c10::OptionalType::create(c10::NumberType::get())));
  stack.emplace_back("");
}

}  // namespace

extern "C" {

// How often the tensor's numbers have been written to.
char* shim_version(const at::Tensor* tensor, int64_t* version) {
  return protect([&] { *version = tensor->_version(); });
}

// For inputs of the shape of `input`; others are right too.
char* shim_pack_conv2d(const at::Tensor* weight, const at::Tensor* input, int64_t stride, int64_t padding,
                       at::Tensor** packed) {
  return protect([&] {
    Stack stack{*weight, Pair{padding, padding}, Pair{stride, stride}, Pair{1, 1}, 1, input->sizes().vec()};
    *packed = new at::Tensor(call("_reorder_convolution_weight", std::move(stack)));
  });
}

char* shim_conv2d_packed(const at::Tensor* input, const at::Tensor* packed, const at::Tensor* bias, int64_t stride,
                         int64_t padding, at::Tensor** output) {
  return protect([&] {
    Stack stack{*input, *packed, optional(bias), Pair{padding, padding}, Pair{stride, stride}, Pair{1, 1}, 1};
    push_no_activation(stack);
    *output = new at::Tensor(call("_convolution_pointwise", std::move(stack)));
  });
}

char* shim_pack_linear(const at::Tensor* weight, int64_t rows, at::Tensor** packed) {
  return protect([&] { *packed = new at::Tensor(call("_reorder_linear_weight", {*weight, rows})); });
}

char* shim_linear_packed(const at::Tensor* input, const at::Tensor* packed, const at::Tensor* bias,
                         at::Tensor** output) {
  return protect([&] {
    Stack stack{*input, *packed, optional(bias)};
    push_no_activation(stack);
    *output = new at::Tensor(call("_linear_pointwise", std::move(stack)));
  });
}

}  // extern "C"
