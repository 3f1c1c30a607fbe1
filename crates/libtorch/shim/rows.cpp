// See rows.h. Plain loops that the compiler turns into vector instructions: this file is compiled with -O3, each loop for
// several levels of x86-64, among which the loader chooses by the CPU.

#include "rows.h"

#include <cstring>

#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_CPU __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EACH_CPU
#endif
// Inlined into the copies, or it would be compiled for the oldest CPU alone.
#define INLINE inline __attribute__((always_inline))

namespace rows {
namespace {

// Sums of so many numbers are in f32, one for each lane; the sums of those in f64.
constexpr int64_t CHUNK = 4096;

INLINE float of_bits(uint32_t bits) {
  float number;
  std::memcpy(&number, &bits, sizeof number);
  return number;
}

INLINE uint32_t bits_of(float number) {
  uint32_t bits;
  std::memcpy(&bits, &number, sizeof bits);
  return bits;
}

constexpr float HIGHEST = 88.3f, LOWEST = -87.3f;

// e^x, of x no further from 0 than these, within 2 units in the last place: 2^n · e^r with |r| <= ln 2 / 2, and a polynomial for the latter (Cephes' expf).
INLINE float exp(float x) {
  x = x > HIGHEST ? HIGHEST : x;
  x = x < LOWEST ? LOWEST : x;
  // Added to a number, it rounds it to a whole one, which then stands in the lowest bits.
  constexpr float ROUNDER = 12582912.0f;
  const float shifted = x * 1.44269504088896341f + ROUNDER;
  const float n = shifted - ROUNDER;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return p * of_bits((bits_of(shifted) - bits_of(ROUNDER) + 127u) << 23);
}

INLINE float sigmoid(float x) {
  return 1.0f / (1.0f + exp(-x));
}

struct Normal {
  float density;
  float distribution;
};

// The standard normal distribution, within 1e-7: Abramowitz and Stegun 7.1.26, by which LibTorch computes erf too.
INLINE Normal normal(float x) {
  const float away = x < 0.0f ? -x : x;
  const float e = exp(-0.5f * x * x);
  const float t = 1.0f / (1.0f + 0.3275911f * 0.70710678118654752f * away);
  float p = 1.061405429f;
  p = p * t - 1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t - 0.284496736f;
  p = p * t + 0.254829592f;
  const float tail = 0.5f * p * t * e;
  return {0.39894228040143268f * e, x < 0.0f ? tail : 1.0f - tail};
}

}  // namespace

FOR_EACH_CPU void widen(const uint16_t* from, float* to, int64_t count) {
  for (int64_t i = 0; i < count; i++) to[i] = of_bits(static_cast<uint32_t>(from[i]) << 16);
}

FOR_EACH_CPU void narrow(const float* from, uint16_t* to, int64_t count) {
  for (int64_t i = 0; i < count; i++) {
    const uint32_t bits = bits_of(from[i]);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    // Beyond infinity's bits there is only NaN, which rounding could make another number of.
    to[i] = static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded);
  }
}

FOR_EACH_CPU Moments moments(const float* xs, int64_t count) {
  double mean = 0, squares = 0;
  for (int64_t start = 0; start < count; start += CHUNK) {
    const int64_t part = count - start < CHUNK ? count - start : CHUNK;
    const float* of_part = xs + start;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < part; i++) sum += of_part[i];
    const float middle = sum / static_cast<float>(part);
    float off = 0, off_squares = 0;
#pragma omp simd reduction(+ : off, off_squares)
    for (int64_t i = 0; i < part; i++) {
      const float away = of_part[i] - middle;
      off += away;
      off_squares += away * away;
    }
    // The moments of both parts together (Chan, Golub and LeVeque 1983).
    const double n = static_cast<double>(part), whole = static_cast<double>(start + part);
    const double part_mean = middle + off / n, part_squares = off_squares - static_cast<double>(off) * off / n;
    const double delta = part_mean - mean;
    mean += delta * n / whole;
    squares += part_squares + delta * delta * static_cast<double>(start) * n / whole;
  }
  return {mean, squares};
}

FOR_EACH_CPU void affine(const float* xs, float* ys, int64_t count, Affine of) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) ys[i] = (xs[i] - of.mean) * of.scale + of.bias;
}

FOR_EACH_CPU void affine_silu(const float* xs, float* ys, int64_t count, Affine of) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) {
    const float z = (xs[i] - of.mean) * of.scale + of.bias;
    ys[i] = z * sigmoid(z);
  }
}

FOR_EACH_CPU void silu_backward(const float* xs, const float* gradient, float* to, int64_t count, Affine of) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) {
    const float z = (xs[i] - of.mean) * of.scale + of.bias;
    const float s = sigmoid(z);
    to[i] = gradient[i] * s * (1.0f + z * (1.0f - s));
  }
}

FOR_EACH_CPU Sums sums(const float* gradient, const float* xs, int64_t count, float mean, float rstd) {
  Sums all{0, 0};
  for (int64_t start = 0; start < count; start += CHUNK) {
    const int64_t end = count - start < CHUNK ? count : start + CHUNK;
    float plain = 0, normed = 0;
#pragma omp simd reduction(+ : plain, normed)
    for (int64_t i = start; i < end; i++) {
      plain += gradient[i];
      normed += gradient[i] * ((xs[i] - mean) * rstd);
    }
    all.plain += plain;
    all.normed += normed;
  }
  return all;
}

FOR_EACH_CPU void combine(const float* gradient, const float* xs, float* to, int64_t count, float a, float b,
                          float c) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) to[i] = gradient[i] * a + (xs[i] * b + c);
}

FOR_EACH_CPU void geglu(const float* a, const float* b, float* ys, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) ys[i] = a[i] * (b[i] * normal(b[i]).distribution);
}

FOR_EACH_CPU void geglu_backward(const float* a, const float* b, const float* gradient, float* to_a, float* to_b,
                                 int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) {
    const Normal n = normal(b[i]);
    const float g = gradient[i], of_a = a[i];
    to_a[i] = g * (b[i] * n.distribution);
    to_b[i] = g * of_a * (n.distribution + b[i] * n.density);
  }
}

FOR_EACH_CPU void softmax(const float* xs, float* ys, int64_t count, float scale) {
  float highest = xs[0] * scale;
#pragma omp simd reduction(max : highest)
  for (int64_t i = 0; i < count; i++) {
    const float x = xs[i] * scale;
    highest = x > highest ? x : highest;
  }
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; i++) {
    const float x = xs[i] * scale - highest;
    const float e = x < LOWEST ? 0.0f : exp(x);
    ys[i] = e;
    sum += e;
  }
  const float part = 1.0f / sum;
#pragma omp simd
  for (int64_t i = 0; i < count; i++) ys[i] *= part;
}

FOR_EACH_CPU void softmax_backward(const float* ys, const float* gradient, float* to, int64_t count, float scale) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; i++) sum += ys[i] * gradient[i];
#pragma omp simd
  for (int64_t i = 0; i < count; i++) to[i] = ys[i] * (gradient[i] - sum) * scale;
}

}  // namespace rows
