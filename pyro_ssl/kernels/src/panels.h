// A matrix packed in panels of VL columns, to multiply rows by.
#pragma once

#include <cstddef>

#include "memory.h"
#include "simd.h"

namespace {

constexpr int MAX_ROWS = VL == 16 ? 12 : 6;  // of sums that the registers hold

// How many of the rows that are left to take at once.
inline int block_of(int left) {
  return left >= 2 * MAX_ROWS ? MAX_ROWS : left > MAX_ROWS ? (left + 1) / 2 : left;
}
template <int R> struct Count {
  constexpr operator int() const { return R; }
};
// Call f with the number n, from 1 to MAX_ROWS, as a constant.
template <int R = MAX_ROWS, class F> void with_constant(int n, F &&f) {
  if constexpr (R == 1) f(Count<1>{});
  else if (n == R) f(Count<R>{});
  else with_constant<R - 1>(n, f);
}

class Panels {
 public:
  const int inputs, count, width;  // width: outputs, padded to count vectors

  Panels(int inputs, int outputs)
      : inputs(inputs), count((outputs + VL - 1) / VL), width(count * VL),
        weights((size_t)inputs * width), bias(width) {}

  float &weight(int input, int output) {
    return weights.data[((size_t)(output / VL) * inputs + input) * VL + output % VL];
  }

  // y = bias + x W of N rows, `width` wide.
  void multiply(int N, const float *const *x, float *y) const {
    for (int r = 0; r < N;) {
      const int n = block_of(N - r);
      with_constant(n, [&](auto R) { rows<R>(x + r, y + (size_t)r * width); });
      r += n;
    }
  }

 private:
  Floats weights;

 public:
  Floats bias;

 private:
  template <int R> void rows(const float *const *x, float *y) const {
    constexpr int J = R * 4 <= 2 * MAX_ROWS ? 4 : 2;
    int q = 0;
    for (; q + J <= count; q += J) some<R, J>(q, x, y);
    for (; q < count; q++) some<R, 1>(q, x, y);
  }
  template <int R, int J> INLINE void some(int q, const float *const *x, float *y) const {
    vec a[R][J];
    for (int r = 0; r < R; r++)
      for (int j = 0; j < J; j++) a[r][j] = at(bias.data + (q + j) * VL);
    const float *w = weights.data + (size_t)q * inputs * VL;
    for (int k = 0; k < inputs; k++)
      for (int j = 0; j < J; j++) {
        const vec w_k = at(w + ((size_t)j * inputs + k) * VL);
        for (int r = 0; r < R; r++) a[r][j] += x[r][k] * w_k;
      }
    for (int r = 0; r < R; r++)
      for (int j = 0; j < J; j++) at(y + (size_t)r * width + (q + j) * VL) = a[r][j];
  }
};

}  // namespace
