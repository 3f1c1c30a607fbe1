// Random numbers from generators of our own: LibTorch's global ones, which its users share, are left alone. The Rust side,
// with the documentation, is src/random.rs.

#include <cstddef>
#include <cstdint>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/rand_ops.h>
#include <ATen/ops/randint_ops.h>
#include <ATen/ops/randn_ops.h>

#include "protect.h"

extern "C" {

char* shim_generator_new(uint64_t seed, at::Generator** generator) {
  return protect([&] { *generator = new at::Generator(at::detail::createCPUGenerator(seed)); });
}

void shim_generator_free(at::Generator* generator) {
  delete generator;
}

// f32 on the CPU.
char* shim_normal(const at::Generator* generator, const int64_t* shape, size_t dims, at::Tensor** numbers) {
  return protect([&] {
    *numbers = new at::Tensor(at::_ops::randn_generator::call(c10::fromIntArrayRefSlow({shape, dims}), *generator,
                                                              at::kFloat, {}, at::kCPU, {}));
  });
}

// f32 on the CPU.
char* shim_uniform(const at::Generator* generator, const int64_t* shape, size_t dims, at::Tensor** numbers) {
  return protect([&] {
    *numbers = new at::Tensor(at::_ops::rand_generator::call(c10::fromIntArrayRefSlow({shape, dims}), *generator,
                                                             at::kFloat, {}, at::kCPU, {}));
  });
}

// i64 on the CPU, in [0, high).
char* shim_integers(const at::Generator* generator, int64_t high, const int64_t* shape, size_t dims,
                    at::Tensor** numbers) {
  return protect([&] {
    *numbers = new at::Tensor(at::_ops::randint_generator::call(high, c10::fromIntArrayRefSlow({shape, dims}),
                                                                *generator, at::kLong, {}, at::kCPU, {}));
  });
}

}  // extern "C"
