// A sweep over Gaussian latents in R^D: `smc/gaussian.py`, of an emission that is quadratic in z_t.
#include "gaussian.h"
#include "sweep.h"

namespace {

// What the cell reads: z_{t-1}, or (z_{t-1} - z_{t-2}) / scale. The cell's table has D rows for it,
// then the bias, and the bias with the start flag.
template <int D> class VectorsReading : public Exogenous {
 public:
  VectorsReading(const VectorsArguments &a, const Cell &cell, int rows)
      : Exogenous(cell), per_increment(a.per_increment), sums((size_t)rows * cell.gates) {}

  bool looks_back() const { return per_increment != nullptr; }
  const float *of(const float *z, const float *before, int row) {
    const float *from = cell.row(z ? D : D + 1);
    float *to = sums.data + (size_t)row * cell.gates, read[D] = {};
    if (z && !per_increment) std::copy_n(z, D, read);
    if (z && before && per_increment)
      for (int d = 0; d < D; d++) read[d] = (z[d] - before[d]) * *per_increment;
    for (int j = 0; j < cell.gates; j += VL) {
      vec sum = at(from + j);
      if (given) sum += at(projected.data + j);
      for (int d = 0; d < D; d++) sum += read[d] * at(cell.row(d) + j);
      at(to + j) = sum;
    }
    return to;
  }

 private:
  const float *per_increment;
  Floats sums;
};

template <int D> class VectorsHead {
 public:
  using Arguments = VectorsArguments;
  using Value = float;
  using Reading = VectorsReading<D>;
  static constexpr int width = D;

  Floats outputs;  // of each particle, what becomes of μ, then of σ

  VectorsHead(const VectorsArguments &a, const Cell &cell)
      : outputs((size_t)LANES * a.P * cell.out), a(a), P(a.P), out(cell.out),
        blocks((a.P + VL - 1) / VL), gamma((size_t)LANES * blocks * ENTRIES * VL),
        log_alpha(blocks * VL) {}

  double look_ahead(int t, int i, const Lane &lane, bool redraw, const float *const *,
                    double *alpha, double *near) {
    const size_t tb = (size_t)t * a.B + lane.b;
    const Quadratic<D> emission(a.emission, tb);
    const float *z = a.particles(t, lane.b, D), *y = outputs.data + i * P * out;
    float lift = LOWEST;
    for (int block = 0; block < blocks; block++) {
      const auto particle = [&](int l) { return std::min(block * VL + l, P - 1); };
      const auto prior = moments(t, [&](int l) { return y + particle(l) * out; },
                                 [&](int l) { return z + particle(l) * D; },
                                 [&](int) { return tb; });
      if (redraw) {
        vec ref[D];
        for (int d = 0; d < D; d++) ref[d] = splat(a.reference[tb * D + d]);
        const vec log_p = prior.log_density(ref);
        for (int l = 0, p = block * VL; l < VL && p < P; l++, p++) near[p] = lane.power * log_p[l];
      }
      at(log_alpha.data + block * VL) =
          look_ahead_of(prior, emission, lane.power, gamma_at(i, block));
    }
    for (int p = 0; p < P; p++) lift = log_alpha.data[p] > lift ? log_alpha.data[p] : lift;
    for (int p = 0; p < P; p++) alpha[p] = std::exp((double)log_alpha.data[p] - lift);
    return lift;
  }

  // μ + L⁻ᵀ (w + noise) of each slot's ancestor
  void draw(size_t tb, int i, const int64_t *ancestors, float *z) const {
    for (int p = 0; p < P; p++) {
      const int row = (int)ancestors[p];
      const float *of = gamma_at(i, row / VL) + row % VL, *noise = a.noise + (tb * P + p) * D;
      float y[D];
      for (int d = D - 1; d >= 0; d--) {
        y[d] = of[d * VL] + noise[d];
        for (int k = d + 1; k < D; k++) y[d] -= of[entry(k, d) * VL] * y[k];
        y[d] /= of[entry(d, d) * VL];
      }
      for (int d = 0; d < D; d++) z[p * D + d] = of[(D + d) * VL] + y[d];
    }
  }

  // Where there was none, [0; 0] is kept.
  const float *before_start(size_t row) const {
    const float *last = a.last_start ? a.last_start + row * (D + 1) : nullptr;
    return last && last[D] > 0 ? last : nullptr;
  }
  float log_twist(size_t tb, const float *z) const { return Quadratic<D>(a.twist, tb).value(z); }

  template <class LaneOf>
  void score(int s, int m, LaneOf lane_of, const float *y, double *to) const {
    for (int from = 0; from < m; from += VL) {
      const auto row = [&](int l) { return std::min(from + l, m - 1); };
      const auto ref = [&](int s, int l) {
        return a.reference + ((size_t)s * a.B + lane_of(row(l)).b) * D;
      };
      const auto prior = moments(s, [&](int l) { return y + row(l) * out; },
                                 [&](int l) { return ref(s - 1, l); },
                                 [&](int l) { return (size_t)s * a.B + lane_of(row(l)).b; });
      vec z[D];
      for (int l = 0; l < VL; l++)
        for (int d = 0; d < D; d++) z[d][l] = ref(s, l)[d];
      const vec log_p = prior.log_density(z);
      for (int l = 0; l < VL && from + l < m; l++)
        to[from + l] = lane_of(from + l).power * (double)log_p[l];
    }
  }

  // [z_{t-2}; 1] of the particles
  void end(const Lane &lane) const {
    if (!a.last) return;
    float *last = a.last + (size_t)lane.b * P * (D + 1);
    std::fill_n(last, P * (D + 1), 0.f);
    if (lane.length == 0 && a.last_start)
      std::copy_n(a.last_start + (size_t)lane.b * P * (D + 1), P * (D + 1), last);
    const float *before = lane.length ? a.particles(lane.length - 1, lane.b, D) : nullptr;
    if (!before) return;
    const size_t at = ((lane.length - 1) * a.B + lane.b) * P;
    for (int p = 0; p < P; p++, last += D + 1) {
      std::copy_n(before + a.ancestors[at + p] * D, D, last);
      last[D] = 1.f;
    }
  }

 private:
  static constexpr int ENTRIES = 2 * D + D * (D + 1) / 2;  // w, μ, the lower triangle of L
  static constexpr int entry(int i, int j) { return 2 * D + i * (i + 1) / 2 + j; }

  const VectorsArguments &a;
  const int P, out, blocks;  // blocks = vectors of particles
  Floats gamma, log_alpha;

  float *gamma_at(int i, int block) const {
    return gamma.data + (size_t)(i * blocks + block) * ENTRIES * VL;
  }

  // A z_{t-1} + b + G u_t and q times the output, of one dimension
  INLINE float corrected(int d, float output, const float *last, const float *drift) const {
    float sum = drift[d] + a.unit[d] * output;
    for (int e = 0; e < D; e++) sum += a.matrix[d * D + e] * last[e];
    return sum;
  }

  // p(z_t | z_{1:t-1}) of VL rows: `y` has the outputs of each, `z` its z_{t-1}, `cell` its t B + b.
  template <class Outputs, class Last, class Cell>
  INLINE Moments<D> moments(int t, Outputs y, Last z, Cell cell) const {
    Moments<D> found;
    if (a.initial && t == 0 && !a.z_start) {
      for (int d = 0; d < D; d++)
        found.mean[d] = splat(a.initial[d]), found.scale[d] = splat(a.initial[D + d]);
      return found;
    }
    for (int l = 0; l < VL; l++) {
      const float *outputs = y(l), *last = a.initial ? z(l) : nullptr;
      for (int d = 0; d < D; d++) {
        found.mean[d][l] = a.matrix ? corrected(d, outputs[d], last, a.drift + cell(l) * D)
                                    : outputs[d] + (last ? last[d] : 0.f);
        found.scale[d][l] = outputs[D + d];
      }
    }
    for (int d = 0; d < D; d++) {
      found.scale[d] = softplus(found.scale[d]) + *a.min_scale;
      if (a.unit) found.scale[d] *= a.unit[d];
    }
    return found;
  }

  // log α_t = c + ½ δ (b + g) + log mass, with δ = μ - m and g = b - Λ δ; keeps γ_t.
  INLINE vec look_ahead_of(Moments<D> prior, const Quadratic<D> &emission, float power,
                           float *kept) const {
    vec away[D], gradient[D], slope = vec{};
    for (int d = 0; d < D; d++) away[d] = prior.mean[d] - emission.center[d];
    for (int d = 0; d < D; d++) {
      gradient[d] = splat(emission.linear[d]);
      for (int e = 0; e < D; e++) gradient[d] -= emission.precision[d * D + e] * away[e];
      slope += away[d] * (emission.linear[d] + gradient[d]);
    }
    vec log_power = vec{};
    if (power != 1.f) {
      // p^s is N(μ, σ² / s) times (2π σ²)^((1 - s) / 2) s^(-1/2), in each dimension.
      const float root = std::sqrt(power);
      for (int d = 0; d < D; d++) {
        log_power += (1.f - power) * (log_of(prior.scale[d]) + 0.5f * LOG_2PI) - std::log(root);
        prior.scale[d] /= root;
      }
    }
    const Product<D> found(prior.scale, gradient, emission.precision);
    for (int d = 0; d < D; d++) {
      at(kept + d * VL) = found.w[d], at(kept + (D + d) * VL) = prior.mean[d];
      for (int e = 0; e <= d; e++) at(kept + entry(d, e) * VL) = found.L[d][e];
    }
    return found.log_mass + log_power + (emission.constant + 0.5f * slope);
  }
};

constexpr int MAX_DIM = 8;  // as in `kernels/vectors.py`

template <int D = MAX_DIM> int sweep_of(const VectorsArguments &a) {
  if constexpr (D == 0) return 1;
  else return a.size == D ? sweep_all<VectorsHead<D>>(a, D + 2, 2 * D) : sweep_of<D - 1>(a);
}

}  // namespace

extern "C" int sweep_vectors(const VectorsArguments *a) { return sweep_of(*a); }
