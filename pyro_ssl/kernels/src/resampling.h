// Ancestors and latents by inversion: `smc/resampling.py`, number for number.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "simd.h"

namespace {

INLINE double point_of(double u, double total) {
  return std::min(u * total, std::nextafter(total, 0.0));
}

// The first of P whose cumulative weight exceeds u times the total.
INLINE int invert(const double *cdf, int P, double u) {
  double point = point_of(u, cdf[P - 1]);
  return std::min((int)(std::upper_bound(cdf, cdf + P, point) - cdf), P - 1);
}

// Conditional systematic resampling: slot i at frac(u0 + i / P), u0 inside the arc of `first`.
inline void systematic(const double *weights, const double *cdf, int P, int first, double u,
                       int64_t *ancestors) {
  double total = cdf[P - 1], u0 = u;
  if (first >= 0) u0 = ((cdf[first] - weights[first]) + u * weights[first]) / total;
  double last = -1.0;
  for (int i = 0, a = 0; i < P; i++) {
    double x = u0 + (double)i / P;
    x -= std::floor(x);
    if (x < last) a = 0;  // past the end of the circle
    last = x;
    double point = point_of(x, total);
    while (a < P - 1 && cdf[a] <= point) a++;
    ancestors[i] = a;
  }
  if (first >= 0) ancestors[0] = first;
}

inline void multinomial(const double *cdf, int P, int first, const double *u,
                        int64_t *ancestors) {
  for (int i = 0; i < P; i++) ancestors[i] = invert(cdf, P, u[i]);
  if (first >= 0) ancestors[0] = first;
}

// A state by its weights, K in vectors of VL, whose sum is `total`; never one of weight 0.
inline int draw_state(const float *weights, int K, float total, float u) {
  float point = std::min(u * total, std::nextafter(total, 0.f)), sum_before = 0.f;
  int k = 0;
  for (; k + VL < K; k += VL) {
    float block = sum(at(weights + k));
    if (sum_before + block > point) break;
    sum_before += block;
  }
  int last = std::min(k + VL, K) - 1;
  float cdf = sum_before + weights[k];
  while (k < last && !(cdf > point)) cdf += weights[++k];
  while (k > 0 && weights[k] == 0.f) k--;
  return k;
}

// Weights of mean 1 in place of log-weights; returns the log of the mean that they had.
inline double normalise(double *log_w, int P) {
  double greatest = std::max(*std::max_element(log_w, log_w + P), -1.7976931348623157e308), mean = 0;
  for (int p = 0; p < P; p++) mean += (log_w[p] = std::exp(log_w[p] - greatest)) / P;
  for (int p = 0; p < P; p++) log_w[p] /= mean;
  return std::log(mean) + greatest;
}

}  // namespace
