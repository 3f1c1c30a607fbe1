// What tch leaves out, as C functions. The Rust side, with the documentation, is src/shim.rs.
//
// Every function returns null, or the text of an exception that the caller frees; no exception leaves this file. Only
// narrow headers are included (not torch/torch.h), so that this compiles in seconds, and only symbols of libtorch_cpu
// and libc10 are used, so that it links without CUDA.

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/ops/_foreach_add_ops.h>
#include <ATen/ops/_foreach_mul_ops.h>
#include <ATen/ops/_foreach_norm_ops.h>
#include <ATen/ops/_fused_adamw_ops.h>
#include <ATen/ops/_pin_memory_ops.h>
#include <ATen/ops/empty_like_ops.h>
#include <ATen/ops/stack_ops.h>
#include <c10/core/Allocator.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/Event.h>
#include <c10/util/env.h>

#include "protect.h"

namespace {

using Tensors = std::vector<at::Tensor>;

constexpr int64_t PIECE = 1 << 16;
constexpr auto ALL = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);

Tensors collect(at::Tensor* const* tensors, size_t count) {
  Tensors list;
  list.reserve(count);
  for (size_t i = 0; i < count; i++) list.push_back(*tensors[i]);
  return list;
}

c10::DeviceAllocator& cuda_allocator() {
  return *c10::getDeviceAllocator(c10::DeviceType::CUDA);
}

}  // namespace

extern "C" {

// One AdamW step. A slot is five tensors: parameter, gradient, exp_avg, exp_avg_sq, step. The kernels walk through
// memory without looking at strides, so everything must be laid out like its parameter. Where `skipped`, which may be
// null, is 1, they change nothing; the host does not wait to learn of it.
char* shim_fused_adamw(at::Tensor* const (*slots)[5], size_t count, double lr, double beta1, double beta2,
                       double weight_decay, double eps, const at::Tensor* skipped) {
  return protect([&] {
    if (count == 0) return;
    at::NoGradGuard no_grad;
    Tensors lists[5];
    for (size_t i = 0; i < count; i++) {
      for (const at::Tensor* tensor : slots[i])
        TORCH_CHECK(tensor->defined(), "parameter ", i, ", its gradient or its state is undefined");
    }
    const auto device = slots[0][0]->device();
    for (size_t i = 0; i < count; i++) {
      const at::Tensor& parameter = *slots[i][0];
      TORCH_CHECK(parameter.is_non_overlapping_and_dense(), "parameter ", i, " is a view with gaps or overlaps");
      for (size_t k = 0; k < 5; k++) {
        at::Tensor tensor = *slots[i][k];
        TORCH_CHECK(tensor.scalar_type() == at::kFloat && tensor.device() == device, "parameter ", i,
                    " or its state is ", tensor.scalar_type(), " on ", tensor.device(), ", not Float on ", device);
        if (k == 4) {
          TORCH_CHECK(tensor.numel() == 1, "the step count of parameter ", i, " is not a single number");
        } else {
          TORCH_CHECK(tensor.sizes() == parameter.sizes(), "parameter ", i, " has shape ", parameter.sizes(),
                      ", its gradient or state ", tensor.sizes());
          if (tensor.strides() != parameter.strides()) {
            TORCH_CHECK(k == 1, "parameter ", i, " has strides ", parameter.strides(), ", its state ",
                        tensor.strides());
            tensor = at::_ops::empty_like::call(parameter, {}, {}, {}, {}, {}).copy_(tensor);
          }
        }
        lists[k].push_back(std::move(tensor));
      }
    }
    std::optional<at::Tensor> found_inf;
    if (skipped != nullptr) {
      TORCH_CHECK(skipped->scalar_type() == at::kFloat && skipped->device() == device && skipped->dim() == 0,
                  "whether the step is skipped is not one Float of shape [] on ", device);
      found_inf = *skipped;
    }
    at::_ops::_foreach_add__Scalar::call(lists[4], 1);
    at::_ops::_fused_adamw_::call(lists[0], lists[1], lists[2], lists[3], {}, lists[4], lr, beta1, beta2, weight_decay,
                                  eps, /*amsgrad=*/false, /*maximize=*/false, {}, found_inf);
    if (found_inf) at::_ops::_foreach_add__Tensor::call(lists[4], *found_inf, -1);
    // As every other operation in place does, so that a packed weight is known to have changed.
    for (const at::Tensor& parameter : lists[0]) parameter.unsafeGetTensorImpl()->bump_version();
  });
}

// A copy on a CUDA device, queued there, from page-locked memory. `at::Tensor::pin_memory` itself warns with each call that
// names a device, and fails for views of one number many times.
char* shim_upload(const at::Tensor* tensor, int8_t device, at::Tensor** copy) {
  return protect([&] {
    const at::Tensor locked =
        at::_ops::_pin_memory::call(tensor->contiguous(), c10::Device(c10::DeviceType::CUDA));
    *copy = new at::Tensor(
        locked.to(c10::Device(c10::DeviceType::CUDA, device), locked.scalar_type(), /*non_blocking=*/true));
  });
}

// A point in the queue of a CUDA device's current stream.
char* shim_event_record(int8_t device, c10::Event** event) {
  return protect([&] {
    const c10::impl::VirtualGuardImpl guard(c10::DeviceType::CUDA);
    auto made = std::make_unique<c10::Event>(c10::DeviceType::CUDA);
    made->record(guard.getStream(c10::Device(c10::DeviceType::CUDA, device)));
    *event = made.release();
  });
}

char* shim_event_wait(const c10::Event* event) {
  return protect([&] { event->synchronize(); });
}

void shim_event_free(c10::Event* event) {
  delete event;
}

// The 2-norm of all numbers in `tensors` together, as a new tensor of shape [].
char* shim_global_norm(at::Tensor* const* tensors, size_t count, at::Tensor** norm) {
  return protect([&] {
    at::NoGradGuard no_grad;
    Tensors parts;
    for (const at::Tensor& tensor : collect(tensors, count)) {
      // On a CPU LibTorch adds up the squares of one tensor in a few f32 sums: of 60 million numbers the norm comes
      // out 0.5 % short. In pieces it is right to 1e-6, at the same speed.
      if (tensor.is_cpu() && tensor.numel() > PIECE) {
        for (auto& piece : tensor.reshape(-1).split(PIECE)) parts.push_back(std::move(piece));
      } else {
        parts.push_back(tensor);
      }
    }
    const Tensors norms = at::_ops::_foreach_norm_Scalar::call(parts, 2, {});
    *norm = new at::Tensor(at::_ops::stack::call(norms, 0).norm());
  });
}

// Multiplies all `tensors` by `factor`, of shape [] on their device, in place.
char* shim_scale_all(at::Tensor* const* tensors, size_t count, const at::Tensor* factor) {
  return protect([&] {
    at::NoGradGuard no_grad;
    at::_ops::_foreach_mul__Tensor::call(collect(tensors, count), *factor);
  });
}

// Takes the gradient away, as Python's `tensor.grad = None`.
char* shim_clear_grads(at::Tensor* const* tensors, size_t count) {
  return protect([&] {
    for (size_t i = 0; i < count; i++) tensors[i]->mutable_grad().reset();
  });
}

// These setters keep the old and the new flags of LibTorch in step; setFloat32Precision alone would make the kernels
// that still read the old flags throw.
char* shim_set_tf32(bool allowed) {
  return protect([&] {
    at::globalContext().setAllowTF32CuBLAS(allowed);
    at::globalContext().setAllowTF32CuDNN(allowed);
  });
}

char* shim_set_deterministic(bool on) {
  return protect([&] {
    // cuBLAS reads this when it is first used, and LibTorch refuses deterministic matrix products without it.
    if (on) c10::utils::set_env("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/false);
    at::globalContext().setDeterministicAlgorithms(on, /*warn_only=*/false);
    at::globalContext().setDeterministicCuDNN(on);
    if (on) at::globalContext().setBenchmarkCuDNN(false);
  });
}

// Whether a library in this process has registered CUDA. Unlike any question to LibTorch's context, this one may be asked
// before such a library is opened.
bool shim_cuda_registered() {
  return at::CUDAHooksRegistry()->Has("CUDAHooks");
}

char* shim_cuda_peak(int8_t device, int64_t* bytes) {
  return protect([&] {
    // Before its first use the allocator has no statistics, and nothing was allocated.
    *bytes = cuda_allocator().initialized() ? cuda_allocator().getDeviceStats(device).allocated_bytes[ALL].peak : 0;
  });
}

char* shim_cuda_reset_peak(int8_t device) {
  return protect([&] {
    if (cuda_allocator().initialized()) cuda_allocator().resetPeakStats(device);
  });
}

char* shim_cuda_empty_cache() {
  return protect([&] {
    if (cuda_allocator().initialized()) cuda_allocator().emptyCache();
  });
}

}  // extern "C"
