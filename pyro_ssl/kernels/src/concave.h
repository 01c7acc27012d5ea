// The concave part of a curvature: Λ without its negative eigenvalues, of VL rows at once.
#pragma once

#include <cmath>
#include <utility>

#include "simd.h"

namespace {

// Eigenvalues that are negative to 0, by Jacobi's rotations, in float64.
template <int D> void clip(double (*m)[D]) {
  double v[D][D] = {};
  for (int i = 0; i < D; i++) v[i][i] = 1.0;
  for (int sweep = 0; sweep < 30; sweep++) {
    double off = 0, size = 0;
    for (int i = 0; i < D; i++)
      for (int j = 0; j <= i; j++) (i == j ? size : off) += m[i][j] * m[i][j];
    if (!(off > 1e-30 * size)) break;
    for (int p = 0; p < D; p++)
      for (int q = p + 1; q < D; q++) {
        if (m[p][q] == 0.0) continue;
        const double theta = (m[q][q] - m[p][p]) / (2.0 * m[p][q]);
        const double t = std::copysign(1.0, theta) / (std::abs(theta) + std::hypot(theta, 1.0));
        const double c = 1.0 / std::hypot(t, 1.0), s = t * c;
        for (int k = 0; k < D; k++) {
          const double x = m[k][p], y = m[k][q];
          m[k][p] = c * x - s * y, m[k][q] = s * x + c * y;
        }
        for (int k = 0; k < D; k++) {
          const double x = m[p][k], y = m[q][k], f = v[k][p], g = v[k][q];
          m[p][k] = c * x - s * y, m[q][k] = s * x + c * y;
          v[k][p] = c * f - s * g, v[k][q] = s * f + c * g;
        }
      }
  }
  double values[D];
  for (int i = 0; i < D; i++) values[i] = m[i][i] > 0.0 ? m[i][i] : 0.0;
  for (int i = 0; i < D; i++)
    for (int j = 0; j < D; j++) {
      m[i][j] = 0;
      for (int k = 0; k < D; k++) m[i][j] += values[k] * v[i][k] * v[j][k];
    }
}

// Most often there is nothing to clip: then Λ has a Cholesky factor.
template <int D> INLINE void concave_part(vec (*precision)[D]) {
  vec L[D][D];
  ivec definite = ivec{} - 1;
  for (int i = 0; i < D; i++) {
    vec pivot = precision[i][i] + 1.17549435e-38f;
    for (int j = 0; j < i; j++) {
      vec entry = precision[i][j];
      for (int k = 0; k < j; k++) entry -= L[i][k] * L[j][k];
      L[i][j] = entry / L[j][j];
      pivot -= L[i][j] * L[i][j];
    }
    definite &= pivot > vec{};
    L[i][i] = square_root(pivot > vec{} ? pivot : splat(1.f));
  }
  for (int l = 0; l < VL; l++) {
    if (definite[l]) continue;
    double m[D][D];
    for (int i = 0; i < D; i++)
      for (int j = 0; j < D; j++) m[i][j] = precision[i][j][l];
    clip<D>(m);
    for (int i = 0; i < D; i++)
      for (int j = 0; j < D; j++) precision[i][j][l] = (float)m[i][j];
  }
}

}  // namespace
