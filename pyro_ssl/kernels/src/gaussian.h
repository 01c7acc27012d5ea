// Diagonal Gaussians over R^D of VL particles at once, and their products with quadratic functions:
// `smc/gaussian.py` and `smc/product.py`.
#pragma once

#include <cstddef>

#include "arguments.h"
#include "simd.h"

namespace {

constexpr float LOG_2PI = 1.8378770664093453f;

// c + b (z - m) - ½ (z - m) Λ (z - m), at one step of one sequence.
template <int D> struct Quadratic {
  const float *center, *linear, *precision;
  float constant;

  Quadratic(const QuadraticArguments &a, size_t tb)
      : center(a.center + tb * D), linear(a.linear + tb * D), precision(a.precision + tb * D * D),
        constant(a.constant[tb]) {}

  float value(const float *z) const {
    float away[D], sum = 0;
    for (int d = 0; d < D; d++) away[d] = z[d] - center[d];
    for (int d = 0; d < D; d++) {
      float curved = 0;
      for (int e = 0; e < D; e++) curved += precision[d * D + e] * away[e];
      sum += away[d] * (linear[d] - 0.5f * curved);
    }
    return constant + sum;
  }
};

template <int D> struct Moments {
  vec mean[D], scale[D];

  vec log_density(const vec *z) const {
    vec sum = splat(-0.5f * D * LOG_2PI);
    for (int d = 0; d < D; d++) {
      vec away = (z[d] - mean[d]) / scale[d];
      sum -= log_of(scale[d]) + 0.5f * away * away;
    }
    return sum;
  }
};

// N(z; μ, diag σ²) exp(g (z - μ) - ½ (z - μ) Λ (z - μ)). With L Lᵀ = diag σ⁻² + Λ and w = L⁻¹ g it
// integrates to exp(½ |w|²) / Π σ_i L_ii; normalised it is N(μ + L⁻ᵀ w, L⁻ᵀ L⁻¹). All is relative
// to μ: no two large numbers are subtracted.
template <int D> struct Product {
  vec w[D], L[D][D], log_mass;  // of L the lower triangle

  INLINE Product(const vec *scale, const vec *gradient, const float *precision)
      : Product(scale, gradient, [=](int i, int j) { return precision[i * D + j]; }) {}
  INLINE Product(const vec *scale, const vec *gradient, const vec (*precision)[D])
      : Product(scale, gradient, [=](int i, int j) { return precision[i][j]; }) {}

 private:
  template <class Entry> INLINE Product(const vec *scale, const vec *gradient, Entry precision) {
    vec square = vec{}, log_det = vec{};
    for (int i = 0; i < D; i++) {
      vec diagonal = precision(i, i) + 1.f / (scale[i] * scale[i]), left = gradient[i];
      for (int j = 0; j < i; j++) {
        vec entry = precision(i, j) + vec{};
        for (int k = 0; k < j; k++) entry -= L[i][k] * L[j][k];
        L[i][j] = entry / L[j][j];
        diagonal -= L[i][j] * L[i][j];
        left -= L[i][j] * w[j];
      }
      L[i][i] = square_root(diagonal);
      w[i] = left / L[i][i];
      square += w[i] * w[i];
      log_det += log_of(L[i][i] * scale[i]);
    }
    log_mass = 0.5f * square - log_det;
  }
};

}  // namespace
