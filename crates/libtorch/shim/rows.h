// What fused operations do with rows of f32 numbers. The C++ side of their operators is fused.cpp.
#pragma once

#include <cstdint>

namespace rows {

// Numbers of bf16, the upper halves of f32, to f32 and back, rounded to the nearest even.
void widen(const uint16_t* from, float* to, int64_t count);
void narrow(const float* from, uint16_t* to, int64_t count);

// The mean, and the sum of the squares of what each number is away from it.
struct Moments {
  double mean;
  double squares;
};
Moments moments(const float* xs, int64_t count);

// z = (x - mean) · scale + bias, as numbers that are much alike would lose their differences otherwise.
struct Affine {
  float mean, scale, bias;
};

// z, and silu(z) = z · σ(z); in place too.
void affine(const float* xs, float* ys, int64_t count, Affine of);
void affine_silu(const float* xs, float* ys, int64_t count, Affine of);

// From the gradient by silu(z) that by z; in place too.
void silu_backward(const float* xs, const float* gradient, float* to, int64_t count, Affine of);

// Σ g, and Σ g · (x - mean) · rstd.
struct Sums {
  double plain;
  double normed;
};
Sums sums(const float* gradient, const float* xs, int64_t count, float mean, float rstd);

// g · a + x · b + c; in place of either too.
void combine(const float* gradient, const float* xs, float* to, int64_t count, float a, float b, float c);

// a · gelu(b), exact, and from its gradient those by a and by b.
void geglu(const float* a, const float* b, float* ys, int64_t count);
void geglu_backward(const float* a, const float* b, const float* gradient, float* to_a, float* to_b, int64_t count);

// softmax(x · scale), and from the gradient g by such numbers p, p · (g - Σ g p) · scale; in place too.
void softmax(const float* xs, float* ys, int64_t count, float scale);
void softmax_backward(const float* ys, const float* gradient, float* to, int64_t count, float scale);

}  // namespace rows
