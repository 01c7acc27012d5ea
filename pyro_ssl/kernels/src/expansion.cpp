// One step of a proposal by expansion, over all particles at once: `smc/expanded.py`, in four calls,
// between which log p(x_t | z_t) is asked for.
//
// What a row leaves for the calls after it is kept by blocks of VL rows, entry by entry.
#include <algorithm>
#include <cstdint>

#include "concave.h"
#include "gaussian.h"
#include "parallel.h"

namespace {

// `kernels/expansion.py` has the same fields in the same order. Rows are N = B P, by sequence.
struct ExpansionArguments {
  int64_t B, P, D, threads;
  double share;            // of the transition in what proposes
  const float *power;      // (B), of p(z_t | z_{1:t-1}); null: 1
  float *kept;             // (N / VL, rounded up) blocks of `expansion_entries`
  const float *mean, *scale, *value, *linear;  // (N, D) each, but value (N), at the mean
  const float *precision;  // (N, D, D)
  float *mode;             // (N, D)
  int64_t *blind;          // 1 where some row has no derivatives
  const float *at_mode;    // (N), log p(x_t | mode)
  double *alpha, *shift;   // (B, P), (B)
  const int64_t *rows;     // (N), ancestors
  const float *noise;      // (N, D)
  const uint8_t *defend;   // (N)
  float *z;                // (N, D)
  const float *at_z;       // (N), log p(x_t | z)
  float *log_w;            // (N)
};

constexpr int MAX_DIM = 8;          // as in `kernels/expansion.py`
constexpr float ROUNDING = 8.f;     // as in `smc/expanded.py`
constexpr int GRAIN = 8192;  // rows that are worth a thread

template <int D> class Expansion {
 public:
  static constexpr int TRIANGLE = D * (D + 1) / 2;
  static constexpr int ENTRIES = 4 * D + 2 * TRIANGLE + 6;

  explicit Expansion(const ExpansionArguments &a) : a(a), N(a.B * a.P) {}

  // γ̃ of every row: the product of the transition and the expansion about its mean, and its mode.
  void ahead(int64_t from, int64_t to) const {
    for (int64_t block = from; block < to; block++) {
      Moments<D> prior;
      vec linear[D], precision[D][D], value = lanes(block, a.value, 1, 0);
      ivec known = ivec{} - 1;
      for (int i = 0; i < D; i++) {
        prior.mean[i] = lanes(block, a.mean, D, i), prior.scale[i] = lanes(block, a.scale, D, i);
        linear[i] = lanes(block, a.linear, D, i), known &= finite(linear[i]);
        for (int j = 0; j < D; j++) {
          precision[i][j] = lanes(block, a.precision, D * D, i * D + j);
          known &= finite(precision[i][j]);
        }
      }
      for (int l = 0; l < VL; l++)
        if (!known[l]) __atomic_store_n(a.blind, 1, __ATOMIC_RELAXED);
      for (int i = 0; i < D; i++) {
        linear[i] = known ? linear[i] : vec{};
        for (int j = 0; j < D; j++) precision[i][j] = known ? precision[i][j] : vec{};
      }
      concave_part<D>(precision);
      keep(block, prior, value, linear, precision, known);
    }
  }

  // α̃ of every particle of some sequences, Laplace's where the mode is no worse than the mean.
  void settle(int64_t from, int64_t to) const {
    for (int64_t b = from; b < to; b++) {
      const float power = a.power ? a.power[b] : 1.f;
      float highest = -INFINITY;
      bool possible = true;
      for (int64_t n = b * a.P; n < (b + 1) * a.P; n++) {
        float *of = row(n), square = 0, expanded = 0;
        for (int i = 0; i < D; i++) {
          const float away = a.mode[n * D + i] - of[MEAN + i * VL], unit = away / of[SCALE + i * VL];
          float curved = 0;
          for (int j = 0; j < D; j++)
            curved += of[precision_at(i, j)] * (a.mode[n * D + j] - of[MEAN + j * VL]);
          square += unit * unit, expanded += away * (of[LINEAR + i * VL] - 0.5f * curved);
        }
        const float gain = a.at_mode[n] - of[VALUE];
        const float rounding = ROUNDING * 1.1920929e-7f * (1.f + std::abs(of[VALUE]));
        const bool trusted = of[TRUSTED] != 0.f && gain - 0.5f * power * square >= -rounding;
        of[TRUSTED] = trusted;
        of[LOG_ALPHA] = trusted ? of[LOG_MASS] + a.at_mode[n] - expanded : of[VALUE] + of[LOG_POWER];
        possible = possible && std::isfinite(of[LOG_ALPHA]);
        highest = std::max(highest, of[LOG_ALPHA]);
      }
      if (!possible) highest = 0.f;
      a.shift[b] = highest;
      for (int64_t n = b * a.P; n < (b + 1) * a.P; n++) {
        if (!possible) row(n)[LOG_ALPHA] = 0.f;
        a.alpha[n] = std::exp((double)row(n)[LOG_ALPHA] - highest);
      }
    }
  }

  // z_t from γ̃ of each slot's ancestor: μ + L⁻ᵀ (w + noise); or of the transition, now and then.
  void draw(int64_t from, int64_t to) const {
    for (int64_t n = from; n < to; n++) {
      const float *of = row(a.rows[n]), *noise = a.noise + n * D;
      const bool plain = a.defend[n] || of[TRUSTED] == 0.f;
      const float widen = of[WIDEN];
      float y[D];
      for (int d = D - 1; d >= 0; d--) {
        if (plain) y[d] = of[SCALE + d * VL] * widen * noise[d];
        else {
          y[d] = of[W + d * VL] + noise[d];
          for (int k = d + 1; k < D; k++) y[d] -= of[factor_at(k, d)] * y[k];
          y[d] /= of[factor_at(d, d)];
        }
      }
      for (int d = 0; d < D; d++) a.z[n * D + d] = of[MEAN + d * VL] + y[d];
    }
  }

  // log p(x_t | z) - log α̃ - log [γ̃(z) / p(z | ...)] of each slot's z and ancestor.
  void weigh(int64_t from, int64_t to) const {
    const float of_plain = std::log((float)a.share), of_rest = std::log1p(-(float)a.share);
    for (int64_t block = from; block < to; block++) {
      const float *of[VL];
      for (int l = 0; l < VL; l++) of[l] = row(a.rows[at_most_last(block, l)]);
      const auto entry = [&](int offset) {
        vec found;
        for (int l = 0; l < VL; l++) found[l] = of[l][offset];
        return found;
      };
      vec away[D], expanded = -entry(LOG_MASS);
      for (int i = 0; i < D; i++) away[i] = lanes(block, a.z, D, i) - entry(MEAN + i * VL);
      for (int i = 0; i < D; i++) {
        vec curved = vec{};
        for (int j = 0; j < D; j++) curved += entry(precision_at(i, j)) * away[j];
        expanded += away[i] * (entry(LINEAR + i * VL) - 0.5f * curved);
      }
      const vec plain = -entry(LOG_POWER), x = of_plain + plain, y = of_rest + expanded;
      const vec high = y > x ? y : x, low = y > x ? x : y;
      const vec mixed = high + log_of(1.f + exp_or_zero(low - high));
      const vec log_gamma = entry(TRUSTED) > vec{} ? mixed : plain;
      const vec log_w = lanes(block, a.at_z, 1, 0) - entry(LOG_ALPHA) - log_gamma;
      for (int l = 0; l < VL && block * VL + l < N; l++) a.log_w[block * VL + l] = log_w[l];
    }
  }

 private:
  enum : int {  // where a block keeps what
    W = 0,
    MEAN = D * VL,
    SCALE = 2 * D * VL,
    LINEAR = 3 * D * VL,
    FACTOR = 4 * D * VL,
    PRECISION = FACTOR + TRIANGLE * VL,
    LOG_MASS = PRECISION + TRIANGLE * VL,
    LOG_POWER = LOG_MASS + VL,
    VALUE = LOG_POWER + VL,
    TRUSTED = VALUE + VL,
    WIDEN = TRUSTED + VL,
    LOG_ALPHA = WIDEN + VL,
  };
  static constexpr int triangle(int i, int j) {
    return i < j ? triangle(j, i) : i * (i + 1) / 2 + j;
  }
  static constexpr int factor_at(int i, int j) { return FACTOR + triangle(i, j) * VL; }
  static constexpr int precision_at(int i, int j) { return PRECISION + triangle(i, j) * VL; }

  const ExpansionArguments &a;
  const int64_t N;

  float *row(int64_t n) const { return a.kept + (n / VL) * ENTRIES * VL + n % VL; }
  int64_t at_most_last(int64_t block, int l) const { return std::min(block * VL + l, N - 1); }
  INLINE vec lanes(int64_t block, const float *from, int stride, int offset) const {
    vec found;
    for (int l = 0; l < VL; l++) found[l] = from[at_most_last(block, l) * stride + offset];
    return found;
  }
  static INLINE ivec finite(vec x) { return x - x == vec{}; }

  INLINE void keep(int64_t block, Moments<D> &prior, vec value, const vec *linear,
                   const vec (*precision)[D], ivec known) const {
    float *to = a.kept + block * ENTRIES * VL;
    vec widen = splat(1.f), log_power = vec{};
    for (int i = 0; i < D; i++) at(to + SCALE + i * VL) = prior.scale[i];
    if (a.power) {
      // p^s is N(μ, σ² / s) times (2π σ²)^((1 - s) / 2) s^(-1/2), in each dimension.
      vec power;
      for (int l = 0; l < VL; l++) power[l] = a.power[at_most_last(block, l) / a.P];
      const vec root = square_root(power);
      widen = 1.f / root;
      for (int i = 0; i < D; i++) {
        log_power += (1.f - power) * (log_of(prior.scale[i]) + 0.5f * LOG_2PI) - log_of(root);
        prior.scale[i] *= widen;
      }
    }
    const Product<D> found(prior.scale, linear, precision);
    vec y[D];
    for (int d = D - 1; d >= 0; d--) {
      y[d] = found.w[d];
      for (int k = d + 1; k < D; k++) y[d] -= found.L[k][d] * y[k];
      y[d] /= found.L[d][d];
    }
    for (int i = 0; i < D; i++) {
      at(to + W + i * VL) = found.w[i], at(to + MEAN + i * VL) = prior.mean[i];
      at(to + LINEAR + i * VL) = linear[i];
      for (int j = 0; j <= i; j++)
        at(to + factor_at(i, j)) = found.L[i][j], at(to + precision_at(i, j)) = precision[i][j];
      for (int l = 0; l < VL && block * VL + l < N; l++)
        a.mode[(block * VL + l) * D + i] = prior.mean[i][l] + y[i][l];
    }
    at(to + LOG_MASS) = found.log_mass + log_power, at(to + LOG_POWER) = log_power;
    at(to + VALUE) = value, at(to + WIDEN) = widen;
    at(to + TRUSTED) = known ? splat(1.f) : vec{};
  }
};

// Call f with an Expansion of the dimension that is given.
template <int D = MAX_DIM, class F> void with_dimension(const ExpansionArguments &a, F &&f) {
  if constexpr (D > 0) {
    if (a.D == D) f(Expansion<D>(a));
    else with_dimension<D - 1>(a, f);
  }
}

int64_t blocks(const ExpansionArguments &a) { return (a.B * a.P + VL - 1) / VL; }

}  // namespace

// How many floats a block of how many rows keeps.
extern "C" int64_t expansion_entries(int64_t D) {
  int64_t entries = 0;
  const ExpansionArguments a{0, 0, D};
  with_dimension(a, [&](auto of) { entries = decltype(of)::ENTRIES; });
  return entries * VL;
}
extern "C" int64_t expansion_rows() { return VL; }

extern "C" void expansion_ahead(const ExpansionArguments *a) {
  with_dimension(*a, [&](auto of) {
    in_parallel(blocks(*a), GRAIN / VL, a->threads, [&](int64_t i, int64_t j) { of.ahead(i, j); });
  });
}
extern "C" void expansion_settle(const ExpansionArguments *a) {
  with_dimension(*a, [&](auto of) {
    in_parallel(a->B, GRAIN / std::max<int64_t>(a->P, 1), a->threads,
                [&](int64_t i, int64_t j) { of.settle(i, j); });
  });
}
extern "C" void expansion_draw(const ExpansionArguments *a) {
  with_dimension(*a, [&](auto of) {
    in_parallel(a->B * a->P, GRAIN, a->threads, [&](int64_t i, int64_t j) { of.draw(i, j); });
  });
}
extern "C" void expansion_weigh(const ExpansionArguments *a) {
  with_dimension(*a, [&](auto of) {
    in_parallel(blocks(*a), GRAIN / VL, a->threads, [&](int64_t i, int64_t j) { of.weigh(i, j); });
  });
}
