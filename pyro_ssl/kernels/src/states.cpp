// A sweep over discrete latents: `smc/discrete.py`.
#include "sweep.h"

namespace {

// z's row of the cell's table, the last of which is the start's, and exogenous inputs.
class StatesReading : public Exogenous {
 public:
  StatesReading(const StatesArguments &a, const Cell &cell, int rows)
      : Exogenous(cell), start(a.size), sums(a.inputs ? (size_t)rows * cell.gates : 0) {}

  bool looks_back() const { return false; }
  const float *of(const int64_t *z, const int64_t *, int row) {
    const float *from = cell.row(z ? (int)*z : start);
    if (!given) return from;
    float *to = sums.data + (size_t)row * cell.gates;
    for (int j = 0; j < cell.gates; j += VL) at(to + j) = at(from + j) + at(projected.data + j);
    return to;
  }

 private:
  const int start;
  Floats sums;
};

// log p(z) of a row of logits.
inline double log_softmax_at(const float *logits, int out, int z) {
  vec top = at(logits), total = vec{};
  for (int k = VL; k < out; k += VL) top = greater(top, at(logits + k));
  float greatest = max(top);
  for (int k = 0; k < out; k += VL) total += exp_or_zero(at(logits + k) - greatest);
  return (double)(logits[z] - greatest) - std::log((double)sum(total));
}

class StatesHead {
 public:
  using Arguments = StatesArguments;
  using Value = int64_t;
  using Reading = StatesReading;
  static constexpr int width = 1;

  Floats outputs;  // logits, then the joint

  StatesHead(const StatesArguments &a, const Cell &cell)
      : outputs((size_t)LANES * a.P * cell.out), a(a), cell(cell), P(a.P), K(a.size),
        emission(cell.out), total(LANES * P) {}

  // Rows of p(z_t = k | z_{1:t-1}) p(x_t | z_t = k) over e^lift, and their sums.
  double look_ahead(int t, int i, const Lane &lane, bool redraw, const float *const *h,
                    double *alpha, double *near) {
    const size_t tb = (size_t)t * a.B + lane.b;
    const float *log_e = a.emission + tb * K, power = lane.power;
    const int ref = redraw ? (int)a.reference[tb] : -1;
    float lift = LOWEST;
    for (int k = 0; k < K; k++) {
      emission.data[k] = log_e[k];
      lift = log_e[k] > lift ? log_e[k] : lift;
    }
    for (int k = K; k < cell.out; k++) emission.data[k] = LOWEST;
    for (int k = 0; k < cell.out; k += VL)
      at(emission.data + k) = exp_or_zero(at(emission.data + k) - lift);
    double sum_of_all = 0;
    for (int p = 0; p < P; p++) {
      float *row = outputs.data + (size_t)(i * P + p) * cell.out;
      const float logit = ref < 0 ? 0.f : row[ref];
      vec top = at(row), s = vec{}, mass = vec{};
      for (int k = VL; k < cell.out; k += VL) top = greater(top, at(row + k));
      const float greatest = max(top);
      for (int k = 0; k < cell.out; k += VL) {
        vec log_p = at(row + k) - greatest, p_k = exp_or_zero(log_p);
        s += p_k;
        if (power != 1.f) p_k = exp_or_zero(log_p * power);
        p_k *= at(emission.data + k);
        at(row + k) = p_k;
        mass += p_k;
      }
      const double normaliser = sum(s);
      total[i * P + p] = sum(mass);
      alpha[p] = total[i * P + p] / (power == 1.f ? normaliser : std::pow(normaliser, (double)power));
      if (ref >= 0) near[p] = power * ((double)(logit - greatest) - std::log(normaliser));
      sum_of_all += alpha[p];
    }
    // What the prior allows and what explains x hardly overlap: float32 has lost too much.
    return sum_of_all > 1e-20 * P ? lift : joint_in_logarithms(log_e, power, i, h, alpha);
  }

  void draw(size_t tb, int i, const int64_t *ancestors, int64_t *z) const {
    for (int p = 0; p < P; p++) {
      const int row = i * P + (int)ancestors[p];
      z[p] = draw_state(outputs.data + (size_t)row * cell.out, K, total[row], a.u_z[tb * P + p]);
    }
  }

  const int64_t *before_start(size_t) const { return nullptr; }
  float log_twist(size_t tb, const int64_t *z) const { return a.twist[tb * K + *z]; }

  template <class LaneOf>
  void score(int s, int m, LaneOf lane_of, const float *logits, double *to) const {
    for (int r = 0; r < m; r++) {
      const Lane &lane = lane_of(r);
      const int ref = (int)a.reference[s * a.B + lane.b];
      to[r] = lane.power * log_softmax_at(logits + (size_t)r * cell.out, cell.out, ref);
    }
  }

  void end(const Lane &) const {}

 private:
  const StatesArguments &a;
  const Cell &cell;
  const int P, K;
  Floats emission;
  std::vector<float> total;  // of each row of the joint

  double joint_in_logarithms(const float *log_e, float power, int i, const float *const *h,
                             double *alpha) {
    float *rows = outputs.data + (size_t)i * P * cell.out, lift = LOWEST;
    cell.read_out(P, h, rows);
    for (float *row = rows; row < rows + (size_t)P * cell.out; row += cell.out) {
      float greatest = *std::max_element(row, row + K);
      double s = 0;
      for (int k = 0; k < K; k++) s += std::exp((double)(row[k] - greatest));
      for (int k = 0; k < K; k++) {
        row[k] = (float)(power * ((double)(row[k] - greatest) - std::log(s))) + log_e[k];
        lift = row[k] > lift ? row[k] : lift;
      }
    }
    for (int p = 0; p < P; p++) {
      float *row = rows + (size_t)p * cell.out, mass = 0;
      for (int k = 0; k < K; k++) mass += row[k] = std::exp(row[k] - lift);
      std::fill(row + K, row + cell.out, 0.f);
      alpha[p] = total[i * P + p] = mass;
    }
    return lift;
  }
};

}  // namespace

extern "C" int sweep_states(const StatesArguments *a) {
  return sweep_all<StatesHead>(*a, (int)a->size + 1, (int)a->size);
}
