// Vectors of VL floats, by the compiler's vector types, and the functions that a sweep needs.
//
// A NaN stays one: comparisons below are written so that it is what they return.
#pragma once

#include <cmath>
#include <cstdint>

#ifdef __AVX512F__
#include <immintrin.h>
#define VL 16
#elif defined(__AVX2__)
#include <immintrin.h>
#define VL 8
#else
#define VL 4
#endif

#define INLINE inline __attribute__((always_inline))

namespace {

typedef float vec __attribute__((vector_size(4 * VL), aligned(4 * VL)));
typedef int32_t ivec __attribute__((vector_size(4 * VL), aligned(4 * VL)));

INLINE vec splat(float x) { return x - vec{}; }
INLINE vec &at(float *x) { return *(vec *)x; }
INLINE const vec &at(const float *x) { return *(const vec *)x; }

// The processor's minimum and maximum return their second operand if one is NaN.
#if VL == 16
INLINE vec at_most(vec x, float b) { return (vec)_mm512_min_ps((__m512)splat(b), (__m512)x); }
INLINE vec at_least(vec x, float b) { return (vec)_mm512_max_ps((__m512)splat(b), (__m512)x); }
INLINE vec greater(vec x, vec y) { return (vec)_mm512_max_ps((__m512)y, (__m512)x); }
#elif VL == 8
INLINE vec at_most(vec x, float b) { return (vec)_mm256_min_ps((__m256)splat(b), (__m256)x); }
INLINE vec at_least(vec x, float b) { return (vec)_mm256_max_ps((__m256)splat(b), (__m256)x); }
INLINE vec greater(vec x, vec y) { return (vec)_mm256_max_ps((__m256)y, (__m256)x); }
#else
INLINE vec at_most(vec x, float b) { return x > splat(b) ? splat(b) : x; }
INLINE vec at_least(vec x, float b) { return x < splat(b) ? splat(b) : x; }
INLINE vec greater(vec x, vec y) { return y > x ? y : x; }
#endif

// Sum and maximum over the entries, by halves.
template <int N> INLINE float sum_of(const float *x) {
  if constexpr (N == 1) return x[0];
  else {
    typedef float half __attribute__((vector_size(2 * N), aligned(4)));
    float folded[N / 2];
    *(half *)folded = *(const half *)x + *(const half *)(x + N / 2);
    return sum_of<N / 2>(folded);
  }
}
template <int N> INLINE float max_of(const float *x) {
  if constexpr (N == 1) return x[0];
  else {
    typedef float half __attribute__((vector_size(2 * N), aligned(4)));
    float folded[N / 2];
    half a = *(const half *)x, b = *(const half *)(x + N / 2);
    *(half *)folded = b > a ? b : a;
    return max_of<N / 2>(folded);
  }
}
INLINE float sum(vec x) { return sum_of<VL>((const float *)&x); }
INLINE float max(vec x) { return max_of<VL>((const float *)&x); }

constexpr float LOG2_E = 1.44269504088896341f, LOG2_E_REST = 1.9259629911e-8f;

// 2^n 2^f of a whole n and |f| <= 1/2, to 2e-7 of it (coefficients as in Cephes, exp2f).
INLINE vec power_of_two(vec n, vec f) {
  vec p = splat(1.535336188319500e-4f);
  p = p * f + 1.339887440266574e-3f;
  p = p * f + 9.618437357674640e-3f;
  p = p * f + 5.550332471162809e-2f;
  p = p * f + 2.402264791363012e-1f;
  p = p * f + 6.931472028550421e-1f;
  p = p * f + 1.f;
#if VL == 16
  return (vec)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
  return (vec)((ivec)p + (__builtin_convertvector(n, ivec) << 23));
#endif
}
INLINE vec nearest(vec x) {
#if VL == 16
  return (vec)_mm512_roundscale_ps((__m512)x, 0);
#else
  const vec magic = splat(12582912.f);  // 1.5 * 2^23, to which nothing finer than 1 can be added
  return (x + magic) - magic;
#endif
}

// 2^x for x >= -126; of a gate, at most 2^40: three such factors still have a finite product.
INLINE vec exp2_of_gate(vec x) {
  x = at_least(at_most(x, 40.f), -126.f);
  vec n = nearest(x);
  return power_of_two(n, x - n);
}

// e^x of x <= 0, and 0 from -87 downwards.
INLINE vec exp_or_zero(vec x) {
  vec bounded = at_least(x, -87.f);
  vec n = nearest(bounded * LOG2_E);
  vec f = (bounded * LOG2_E - n) + bounded * LOG2_E_REST;
  vec e = power_of_two(n, f);
  return x < splat(-87.f) ? vec{} : e;
}

INLINE vec reciprocal(vec x) {
#if VL == 16
  vec r = (vec)_mm512_rcp14_ps((__m512)x);
  return r * (2.f - x * r);  // one step of Newton's, from 14 bits
#else
  return 1.f / x;
#endif
}

INLINE vec square_root(vec x) {
#if VL == 16
  return (vec)_mm512_sqrt_ps((__m512)x);
#elif VL == 8
  return (vec)_mm256_sqrt_ps((__m256)x);
#else
  for (int i = 0; i < VL; i++) x[i] = std::sqrt(x[i]);
  return x;
#endif
}

// log x = e log 2 + log m, with x = 2^e m and √½ <= m < √2 (coefficients as in Cephes, logf).
INLINE vec log_of(vec x) {
  const vec tiny = splat(1.17549435e-38f), infinity = splat(INFINITY);
  vec normal = x < tiny ? x * 16777216.f : x;
  ivec e = (((ivec)normal >> 23) & 255) - 126;
  vec m = (vec)(((ivec)normal & 0x007fffff) | 0x3f000000);
  ivec low = m < splat(0.70710678f);  // -1 where it is
  m = (low ? m + m : m) - 1.f;
  vec exponent = __builtin_convertvector(e + low, vec) - (x < tiny ? splat(24.f) : vec{});
  vec p = splat(7.0376836292e-2f), square = m * m;
  p = p * m - 1.1514610310e-1f;
  p = p * m + 1.1676998740e-1f;
  p = p * m - 1.2420140846e-1f;
  p = p * m + 1.4249322787e-1f;
  p = p * m - 1.6668057665e-1f;
  p = p * m + 2.0000714765e-1f;
  p = p * m - 2.4999993993e-1f;
  p = p * m + 3.3333331174e-1f;
  vec rest = p * m * square - 0.5f * square + exponent * -2.12194440e-4f;
  vec found = m + rest + exponent * 0.693359375f;
  found = x < infinity ? found : x;
  return x > vec{} ? found : x == vec{} ? -infinity : splat(NAN);
}

// log(1 + e^x) = max(x, 0) + 2 artanh(y / (2 + y)), y = e^-|x|; exact to rounding however small.
INLINE vec softplus(vec x) {
  vec positive = at_least(x, 0.f), y = exp_or_zero((vec)((ivec)x | INT32_MIN));
  vec s = y / (2.f + y), q = s * s;
  vec p = splat(1.f / 15.f);
  p = p * q + 1.f / 13.f;
  p = p * q + 1.f / 11.f;
  p = p * q + 1.f / 9.f;
  p = p * q + 1.f / 7.f;
  p = p * q + 1.f / 5.f;
  p = p * q + 1.f / 3.f;
  p = p * q + 1.f;
  return positive + 2.f * s * p;
}

}  // namespace
