// Backward messages of a Markov chain, each of maximum 1: `smc/surrogate.py`.
#include <algorithm>
#include <vector>

#include "panels.h"

namespace {

constexpr int LANES = 8;

// β_{t-1}(j) ∝ Σ_k A(j, k) p(x_t | k) β_t(k) of a few sequences.
void run(const Panels &back, const int64_t *sequences, int n, int64_t T, int64_t B, int64_t K,
         const float *emission, const int64_t *lengths, float *beta) {
  Floats joint((size_t)LANES * K), sums((size_t)LANES * back.width);
  const float *rows[LANES];
  for (int i = 0; i < n; i++) rows[i] = joint.data + (size_t)i * K;
  for (int64_t t = T - 1; t > 0; t--) {
    for (int i = 0; i < n; i++) {
      const size_t at_t = ((size_t)t * B + sequences[i]) * K;
      for (int64_t k = 0; k < K; k++) joint.data[i * K + k] = emission[at_t + k] * beta[at_t + k];
    }
    back.multiply(n, rows, sums.data);
    for (int i = 0; i < n; i++) {
      const int64_t b = sequences[i];
      float *now = sums.data + (size_t)i * back.width, *to = beta + ((t - 1) * B + b) * K;
      const float greatest = *std::max_element(now, now + K);
      // Past the length there is nothing to say; and where no path explains x_t, the sweep says so.
      const bool possible = greatest > 0 && (!lengths || t < lengths[b]);
      for (int64_t k = 0; k < K; k++) to[k] = possible ? now[k] / greatest : 1.f;
    }
  }
}

}  // namespace

// `back` (K, K) holds A(j, k) in row k; `beta` (T, B, K) comes as ones. 1 if memory did not suffice.
extern "C" int backward_messages(int64_t T, int64_t B, int64_t K, const float *back,
                                 const float *emission, const int64_t *lengths, float *beta) {
  try {
    Panels panels((int)K, (int)K);
    for (int64_t k = 0; k < K; k++)
      for (int64_t j = 0; j < K; j++) panels.weight((int)k, (int)j) = back[k * K + j];
    std::vector<int64_t> sequences(LANES);
    for (int64_t b = 0; b < B; b += LANES) {
      const int n = (int)std::min<int64_t>(LANES, B - b);
      for (int i = 0; i < n; i++) sequences[i] = b + i;
      run(panels, sequences.data(), n, T, B, K, emission, lengths, beta);
    }
    return 0;
  } catch (...) {
    return 1;
  }
}
