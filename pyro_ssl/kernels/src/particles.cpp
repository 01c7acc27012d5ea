// What any step does with weights of float64, where torch does the rest of it: `smc/sweep.py`.
#include <cstddef>

#include "resampling.h"

// Ancestors (B, P) by weights (B, P), of which `cdf` has room for one row. The first of each row is
// that of `first` (B), or where this is null any, or 0 if `pinned`.
extern "C" void ancestors_of(int64_t B, int64_t P, int64_t by_systematic, int64_t pinned,
                             const double *weights, const int64_t *first, const double *u,
                             double *cdf, int64_t *ancestors) {
  for (int64_t b = 0; b < B; b++, weights += P, ancestors += P, u += by_systematic ? 1 : P) {
    double sum = 0;
    for (int64_t p = 0; p < P; p++) cdf[p] = sum += weights[p];
    const int of_first = first ? (int)first[b] : pinned ? 0 : -1;
    if (by_systematic) systematic(weights, cdf, (int)P, of_first, u[0], ancestors);
    else multinomial(cdf, (int)P, of_first, u, ancestors);
  }
}

// Weights (B, P) of mean 1 in place of log-weights, and the log of the mean that they had.
extern "C" void normalise_all(int64_t B, int64_t P, double *log_w, double *log_mean) {
  for (int64_t b = 0; b < B; b++) log_mean[b] = normalise(log_w + b * P, (int)P);
}
