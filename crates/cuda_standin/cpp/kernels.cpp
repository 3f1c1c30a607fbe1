// The device's kernels, which are the CPU's: each runs on the host's view of the device's memory.

#include "standin.h"

#include <array>
#include <cstring>
#include <optional>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include <ATen/Context.h>
#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <ATen/core/jit_type.h>
#include <ATen/core/stack.h>
#include <ATen/ops/_fused_sdp_choice_ops.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/_scaled_dot_product_attention_math_ops.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_ops.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/linalg_vector_norm_ops.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <torch/library.h>

namespace standin {
namespace {

// The same memory as the host sees it.
at::Tensor host_view(const at::Tensor& tensor) {
  if (!tensor.is_cuda()) return tensor;
  const auto options = tensor.options().device(c10::kCPU).requires_grad(false);
  return at::from_blob(on_host(tensor.data_ptr()), tensor.sizes(), tensor.strides(), at::detail::noopDelete, options);
}

at::Tensor empty(c10::IntArrayRef size, std::optional<c10::ScalarType> dtype, std::optional<c10::Layout>,
                 std::optional<c10::Device> device, std::optional<bool>, std::optional<c10::MemoryFormat> format) {
  TORCH_CHECK(!device || device->index() <= 0, "CUDA error: invalid device ordinal (", *device, ")");
  const c10::DispatchKeySet keys(c10::DispatchKey::CUDA);
  return at::detail::empty_generic(size, &device_allocator(), keys, c10::dtype_or_default(dtype), format);
}

at::Tensor empty_strided(c10::IntArrayRef size, c10::IntArrayRef stride, std::optional<c10::ScalarType> dtype,
                         std::optional<c10::Layout>, std::optional<c10::Device> device, std::optional<bool>) {
  TORCH_CHECK(!device || device->index() <= 0, "CUDA error: invalid device ordinal (", *device, ")");
  const c10::DispatchKeySet keys(c10::DispatchKey::CUDA);
  return at::detail::empty_strided_generic(size, stride, &device_allocator(), keys, c10::dtype_or_default(dtype));
}

// A tensor on the device with the numbers of one on the host, laid out alike.
at::Tensor moved(const at::Tensor& tensor) {
  const at::Tensor whole = tensor.is_non_overlapping_and_dense() ? tensor : tensor.contiguous();
  const at::Tensor there = empty_strided(whole.sizes(), whole.strides(), whole.scalar_type(), {}, {}, {});
  std::memcpy(on_host(there.data_ptr()), whole.data_ptr(), whole.nbytes());
  return there;
}

const at::Tensor& resize(const at::Tensor& self, c10::SymIntArrayRef to, std::optional<c10::MemoryFormat> format) {
  TORCH_CHECK(!format || *format == c10::MemoryFormat::Contiguous, "the stand-in resizes to contiguous tensors only");
  const auto sizes = C10_AS_INTARRAYREF_SLOW(to);
  const auto bytes =
      at::detail::computeStorageNbytesContiguous(sizes, self.dtype().itemsize(), self.storage_offset());
  const auto& storage = self.storage();
  if (storage.nbytes() < bytes) {
    auto larger = device_allocator().allocate(bytes);
    if (storage.nbytes() > 0) std::memcpy(on_host(larger.get()), on_host(storage.data()), storage.nbytes());
    storage.set_data_ptr_noswap(std::move(larger));
    storage.set_nbytes(bytes);
  }
  self.unsafeGetTensorImpl()->set_sizes_contiguous(sizes);
  return self;
}

// Between the host and the device, or on the device.
at::Tensor& copy(at::Tensor& self, const at::Tensor& from, bool non_blocking) {
  const at::NoGradGuard no_grad;
  const bool upload = from.is_cpu(), download = self.is_cpu();
  // As on a GPU, one need not wait for a copy only where the host's memory is page-locked.
  const bool queued = non_blocking && (upload || download) && is_pinned((upload ? from : self).data_ptr());
  if (download && queued) {
    counts().queued_downloads++;
    // The numbers as they are now; they are there when one has waited.
    queue_download([self, taken = host_view(from).clone()]() mutable {
      const at::NoGradGuard no_grad;
      self.copy_(taken);
    });
    return self;
  }
  if (download) {
    counts().blocking_downloads++;
    wait_for(now());
  } else if (upload) {
    ++(queued ? counts().queued_uploads : counts().blocking_uploads);
  } else {
    counts().kernels++;
  }
  host_view(self).copy_(host_view(from));
  return self;
}

at::Scalar item(const at::Tensor& self) {
  counts().blocking_downloads++;
  wait_for(now());
  return host_view(self).item();
}

// Whether the operator rounds the factors of f32 products to TF32, as LibTorch's switches stand.
bool rounds(const c10::FunctionSchema& schema) {
  constexpr std::array<std::string_view, 4> products{"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"};
  const std::string_view name = schema.name();
  for (const auto product : products) {
    if (name == product) return at::globalContext().allowTF32CuBLAS();
  }
  const bool convolves = name == "aten::convolution" || name == "aten::convolution_backward";
  return convolves && at::globalContext().allowTF32CuDNN();
}

// To the nearest number with 10 bits of mantissa, as tensor cores take it.
at::Tensor rounded(const at::Tensor& tensor) {
  at::Tensor copy = tensor.clone();
  auto* bits = static_cast<uint32_t*>(copy.data_ptr());
  const auto numbers = static_cast<int64_t>(copy.storage().nbytes() / sizeof(uint32_t));
  constexpr uint32_t exponent = 0x7f800000;
  for (int64_t i = 0; i < numbers; i++) {
    // Infinite ones, and what is no number, stay what they are.
    if ((bits[i] & exponent) != exponent) bits[i] = (bits[i] + 0x1000) & ~uint32_t{0x1fff};
  }
  return copy;
}

// What a kernel is lent: the host's view of a tensor on the device.
struct Lent {
  at::Tensor device, host;
  bool written;
};

class Call {
 public:
  explicit Call(const c10::OperatorHandle& op) : op_(op), rounds_(rounds(op.schema())) {}

  c10::IValue lend(const c10::IValue& value, const c10::Argument& argument) {
    const bool written = argument.alias_info() != nullptr && argument.alias_info()->isWrite();
    if (value.isTensor()) {
      const at::Tensor host = lend(value.toTensor(), written);
      // The terms that are added to a product are no factors.
      const bool added = argument.name() == "bias" || (argument.name() == "self" && op_.schema().arguments().size() > 3);
      return rounds_ && !written && !added && host.defined() && host.scalar_type() == at::kFloat ? rounded(host) : host;
    }
    if (value.isTensorList()) {
      c10::List<at::Tensor> list;
      for (const at::Tensor& tensor : value.toTensorVector()) list.push_back(lend(tensor, written));
      return list;
    }
    if (value.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> list;
      for (const std::optional<at::Tensor>& tensor : value.toOptionalTensorVector()) {
        list.push_back(tensor ? std::optional<at::Tensor>(lend(*tensor, written)) : std::nullopt);
      }
      return list;
    }
    return value.isDevice() ? c10::IValue(c10::Device(c10::kCPU)) : value;
  }

  c10::IValue take_back(const c10::IValue& value) {
    if (value.isTensor()) return take_back(value.toTensor());
    if (!value.isTensorList()) return value;
    c10::List<at::Tensor> list;
    for (const at::Tensor& tensor : value.toTensorVector()) list.push_back(take_back(tensor));
    return list;
  }

  // Outputs that had no room of their own.
  void fill_outputs() {
    for (const Lent& lent : lent_) {
      if (!lent.written || lent.host.sizes() == lent.device.sizes()) continue;
      resize(lent.device, c10::fromIntArrayRefSlow(lent.host.sizes()), {});
      host_view(lent.device).copy_(lent.host);
    }
  }

 private:
  at::Tensor lend(const at::Tensor& tensor, bool written) {
    if (!tensor.defined()) return tensor;
    if (tensor.is_cpu()) {
      // A GPU's kernels take numbers of the host in element-wise operations, and nothing else.
      const bool number = tensor.dim() == 0 && !written && op_.hasTag(at::Tag::pointwise);
      TORCH_CHECK(number, "Expected all tensors to be on the same device, but found one of shape ", tensor.sizes(),
                  " on cpu in a call of ", op_.schema().name(), " on cuda:0");
      return tensor;
    }
    TORCH_CHECK(tensor.is_cuda(), op_.schema().name(), " has a tensor on ", tensor.device());
    // Kernels ask whether an output is an input.
    for (Lent& lent : lent_) {
      if (!lent.device.is_same(tensor)) continue;
      lent.written |= written;
      return lent.host;
    }
    // Only a tensor with memory of its own can be given another size.
    const bool to_be_sized = written && tensor.numel() == 0;
    const auto options = tensor.options().device(c10::kCPU).requires_grad(false);
    const at::Tensor host =
        to_be_sized ? at::Tensor(at::detail::empty_cpu(tensor.sizes(), options)) : host_view(tensor);
    lent_.push_back({tensor, host, written});
    return host;
  }

  at::Tensor take_back(const at::Tensor& tensor) {
    if (!tensor.defined()) return tensor;
    for (const Lent& lent : lent_) {
      if (tensor.is_same(lent.host)) return lent.device;
      const bool view = tensor.nbytes() > 0 && tensor.storage().data() == lent.host.storage().data();
      TORCH_CHECK(!view, "the stand-in lacks ", op_.schema().name(), ", which returns a view");
    }
    return moved(tensor);
  }

  const c10::OperatorHandle& op_;
  const bool rounds_;
  std::vector<Lent> lent_;
};

// Any operator, by its kernel for the CPU.
void run(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  counts().kernels++;
  const c10::FunctionSchema& schema = op.schema();
  const auto& arguments = schema.arguments();
  Call call(op);
  const size_t first = stack->size() - arguments.size();
  for (size_t i = 0; i < arguments.size(); i++) {
    TORCH_CHECK(!arguments[i].type()->isSubtypeOf(*c10::OptionalType::create(c10::GeneratorType::get())),
                "random numbers are drawn on the device by ", schema.name(), ", where no other device draws the same");
    (*stack)[first + i] = call.lend((*stack)[first + i], arguments[i]);
  }
  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
  call.fill_outputs();
  for (size_t i = stack->size() - schema.returns().size(); i < stack->size(); i++) {
    (*stack)[i] = call.take_back((*stack)[i]);
  }
}

// A GPU adds in a tree. The CPU's kernel adds in a few sums, which of many numbers come out short.
at::Tensor vector_norm(const at::Tensor& self, const at::Scalar& order, at::OptionalIntArrayRef dims, bool keep,
                       std::optional<at::ScalarType> dtype) {
  counts().kernels++;
  const at::Tensor host = host_view(self);
  if (host.scalar_type() != at::kFloat || host.numel() <= 1 << 16) {
    return moved(at::_ops::linalg_vector_norm::call(host, order, dims, keep, dtype));
  }
  const at::Tensor exact = at::_ops::linalg_vector_norm::call(host, order, dims, keep, at::kDouble);
  return moved(exact.to(dtype.value_or(at::kFloat)));
}

// LibTorch would look for a kernel of its own for CUDA; here it takes the way that it takes for the CPU.
at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const std::optional<at::Tensor>& mask, double dropout, bool causal, std::optional<double> scale,
                     bool gqa) {
  const bool masked = mask && mask->defined();
  TORCH_CHECK(k.device() == q.device() && v.device() == q.device() && (!masked || mask->device() == q.device()),
              "Expected query, key, value and mask to be on the same device");
  const auto host_mask = masked ? std::optional<at::Tensor>(host_view(*mask)) : std::nullopt;
  const auto choice = at::_ops::_fused_sdp_choice::call(host_view(q), host_view(k), host_view(v), host_mask, dropout,
                                                        causal, scale, gqa);
  if (choice == 1) {  // sdp::SDPBackend::flash_attention
    return std::get<0>(at::_ops::_scaled_dot_product_flash_attention_for_cpu::call(q, k, v, dropout, causal, mask, scale));
  }
  return std::get<0>(
      at::_ops::_scaled_dot_product_attention_math::call(q, k, v, mask, dropout, causal, {}, scale, gqa));
}

TORCH_LIBRARY_IMPL(_, CUDA, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&run>());
}

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("resize_", &resize);
  m.impl("copy_", &copy);
  m.impl("_local_scalar_dense", &item);
  m.impl("as_strided", &at::native::as_strided_tensorimpl);
  m.impl("view", static_cast<at::Tensor (*)(const at::Tensor&, at::IntArrayRef)>(&at::native::view));
  m.impl("_reshape_alias", &at::native::_reshape_alias);
  m.impl("unfold", &at::native::unfold);
  m.impl("linalg_vector_norm", &vector_norm);
  m.impl("scaled_dot_product_attention", &attention);
  // Of these LibTorch would choose one of CUDA's.
  m.impl("convolution", torch::CppFunction::makeFromBoxedFunction<&run>());
  m.impl("convolution_backward", torch::CppFunction::makeFromBoxedFunction<&run>());
}

TORCH_LIBRARY_IMPL(aten, AutogradCUDA, m) {
  m.impl("scaled_dot_product_attention", &attention);
}

}  // namespace
}  // namespace standin
