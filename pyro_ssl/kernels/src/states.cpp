// A sweep of (conditional) SMC over discrete latents: `smc/sweep.py` with `smc/discrete.py`.
//
// Groups of sequences outside, time inside: all T steps of a group stay in cache, a sequence that
// ends early costs what its steps cost, and draws depend on neither group nor thread.
#include <atomic>
#include <cstring>
#include <thread>

#include "reference.h"

namespace {

constexpr float LOWEST = -3.4028234663852886e38f;
constexpr int LANES = 4;  // sequences in a group, so that single rows still share the weights

class Sweep {
 public:
  Sweep(const StatesArguments &a, const Cell &cell)
      : a(a), cell(cell), P(a.P), K(a.K), now(LANES * P, cell.hidden), x(cell, LANES * P, a.inputs),
        reference(a, cell, a.every ? LANES : 0), joint((size_t)LANES * P * cell.out),
        emission(cell.out), spare((size_t)LANES * P * cell.hidden), total(LANES * P), cdf(P),
        alpha(LANES * P), near(LANES * P), weights(LANES * P) {}

  // The sequences of a group, by falling length.
  void run(const int64_t *sequences, int n) {
    for (int i = 0; i < n; i++) {
      const int b = (int)sequences[i];
      lanes[i] = {b, (int)(a.lengths ? a.lengths[b] : a.T), a.scale ? a.scale[b] : 1.f};
    }
    now.start();
    const bool redraws = a.every && a.first_redraw < lanes[0].length;
    if (redraws) reference.read(lanes, n);
    for (int t = 0; t < a.T; t++) {
      while (n > 0 && lanes[n - 1].length <= t) end(--n);
      if (n == 0) return;
      predict(t, n);
      const bool redraw = redraws && t >= a.first_redraw && (t - a.first_redraw) % a.every == 0;
      for (int i = 0; i < n; i++) look_ahead(t, i, redraw);
      const double *w = a.twist && t ? weights.data() : nullptr;
      std::fill(first, first + n, a.reference ? 0 : -1);
      if (redraw) reference.redraw(t, lanes, n, now, near.data(), w, first);
      for (int i = 0; i < n; i++) draw(t, i);
    }
    while (n > 0) end(--n);
  }

 private:
  const StatesArguments &a;
  const Cell &cell;
  const int P, K;
  Lane lanes[LANES];
  int first[LANES];  // ancestor of the reference's step
  Rows now;          // every particle, having read z_{t-1}
  Projection x;
  Reference reference;
  Floats joint, emission, spare;
  std::vector<float> total;  // of each row of `joint`
  std::vector<double> cdf, alpha, near, weights;

  // Read z_{t-1} into the states, and the logits of p(z_t | z_{1:t-1}) out of them.
  void predict(int t, int n) {
    for (int i = 0; i < n; i++) {
      const size_t b = lanes[i].b, z_at = ((t - 1) * a.B + b) * P;
      x.take(a.inputs ? a.inputs + (t * a.B + b) * a.I : nullptr);
      for (int p = 0; p < P; p++)
        now.x[i * P + p] = x.of(t ? (int)a.z[z_at + p] : cell.start(), i * P + p);
    }
    now.step(cell, n * P, spare);
    cell.read_out(n * P, now.h.data(), joint.data);
  }

  // α_t w_{t-1} of a lane, the rows of its joint, and the evidence of its step.
  void look_ahead(int t, int i, bool redraw) {
    const size_t tb = (size_t)t * a.B + lanes[i].b;
    double *const weight = alpha.data() + i * P;
    const double lift = joint_of(tb, i, redraw ? (int)a.reference[tb] : -1), *w = &weights[i * P];
    double sum = 0;
    for (int p = 0; p < P; p++) {
      if (a.twist && t) weight[p] *= w[p];
      a.chosen_by[tb * P + p] = weight[p];
      sum += weight[p];
    }
    a.log_likelihood[tb] = std::log(sum / P) + lift;
  }

  // Rows of p(z_t = k | z_{1:t-1}) p(x_t | z_t = k) over e^lift; `near` where ref >= 0.
  double joint_of(size_t tb, int lane, int ref) {
    const float *log_e = a.emission + tb * K, power = lanes[lane].power;
    float lift = LOWEST;
    for (int k = 0; k < K; k++) {
      emission.data[k] = log_e[k];
      lift = log_e[k] > lift ? log_e[k] : lift;
    }
    for (int k = K; k < cell.out; k++) emission.data[k] = LOWEST;
    for (int k = 0; k < cell.out; k += VL)
      at(emission.data + k) = exp_or_zero(at(emission.data + k) - lift);
    double sum_of_all = 0;
    for (int r = lane * P; r < (lane + 1) * P; r++) {
      float *row = joint.data + (size_t)r * cell.out;
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
      total[r] = sum(mass);
      alpha[r] = total[r] / (power == 1.f ? normaliser : std::pow(normaliser, (double)power));
      if (ref >= 0) near[r] = power * ((double)(logit - greatest) - std::log(normaliser));
      sum_of_all += alpha[r];
    }
    // What the prior allows and what explains x hardly overlap: float32 has lost too much.
    return sum_of_all > 1e-20 * P ? lift : joint_in_logarithms(log_e, lane);
  }

  double joint_in_logarithms(const float *log_e, int lane) {
    const int from = lane * P;
    float *rows = joint.data + (size_t)from * cell.out, lift = LOWEST;
    cell.read_out(P, now.h.data() + from, rows);
    for (float *row = rows; row < rows + (size_t)P * cell.out; row += cell.out) {
      float greatest = *std::max_element(row, row + K);
      double s = 0;
      for (int k = 0; k < K; k++) s += std::exp((double)(row[k] - greatest));
      for (int k = 0; k < K; k++) {
        row[k] = (float)(lanes[lane].power * ((double)(row[k] - greatest) - std::log(s))) + log_e[k];
        lift = row[k] > lift ? row[k] : lift;
      }
    }
    for (int r = from; r < from + P; r++) {
      float *row = joint.data + (size_t)r * cell.out, mass = 0;
      for (int k = 0; k < K; k++) mass += row[k] = std::exp(row[k] - lift);
      std::fill(row + K, row + cell.out, 0.f);
      alpha[r] = total[r] = mass;
    }
    return lift;
  }

  // Ancestors, z_t from γ_t of each slot's ancestor, its weight, and the states in their order.
  void draw(int t, int i) {
    const size_t tb = (size_t)t * a.B + lanes[i].b;
    int64_t *ancestors = a.ancestors + tb * P, *z = a.z + tb * P;
    resample(tb, i, ancestors);
    const float *h[P], *c[P];
    for (int p = 0; p < P; p++) {
      const int row = i * P + (int)ancestors[p];
      z[p] = draw_state(joint.data + (size_t)row * cell.out, K, total[row], a.u_z[tb * P + p]);
      h[p] = now.h[row], c[p] = now.c[row];
    }
    if (a.reference) z[0] = a.reference[tb];
    std::copy(h, h + P, now.h.begin() + i * P);
    std::copy(c, c + P, now.c.begin() + i * P);
    if (!a.twist) return;
    double *w = weights.data() + i * P;
    for (int p = 0; p < P; p++) w[p] = -(double)a.twist[tb * K + z[p]];
    a.log_likelihood[tb] += normalise(w, P);
  }

  void resample(size_t tb, int i, int64_t *ancestors) {
    const double *weight = alpha.data() + i * P, *u = a.u_ancestors + tb * (a.systematic ? 1 : P);
    double sum = 0;
    for (int p = 0; p < P; p++) cdf[p] = sum += weight[p];
    if (a.systematic) systematic(weight, cdf.data(), P, first[i], u[0], ancestors);
    else multinomial(cdf.data(), P, first[i], u, ancestors);
  }

  // What the caller keeps of a sequence, and its frozen steps.
  void end(int i) {
    const Lane &lane = lanes[i];
    for (int p = 0; p < P; p++) {
      const size_t row = (size_t)lane.b * P + p;
      std::memcpy(a.h + row * a.H, now.h[i * P + p], sizeof(float) * a.H);
      std::memcpy(a.c + row * a.H, now.c[i * P + p], sizeof(float) * a.H);
      if (a.twist) a.weights[row] = lane.length ? weights[i * P + p] : 1.0;
    }
    for (int64_t t = lane.length; t < a.T; t++) {
      const size_t tb = t * a.B + lane.b;
      a.log_likelihood[tb] = 0;
      for (int p = 0; p < P; p++)
        a.z[tb * P + p] = 0, a.ancestors[tb * P + p] = p, a.chosen_by[tb * P + p] = 1;
    }
  }
};

}  // namespace

// Run all sequences, on several threads; returns 0, or 1 where memory did not suffice.
extern "C" int sweep_states(const StatesArguments *a) {
  try {
    const Cell cell({(int)a->kind, (int)a->K, (int)a->H, (int)a->I, a->table, a->exogenous,
                     a->recurrent, a->to_m, a->bias_h, a->head, a->head_bias, (int)a->K});
    std::atomic<int64_t> next{0};
    std::atomic<bool> failed{false};
    auto work = [&] {
      try {
        Sweep sweep(*a, cell);
        for (int64_t b; (b = next.fetch_add(LANES)) < a->B;)
          sweep.run(a->order + b, (int)std::min<int64_t>(LANES, a->B - b));
      } catch (...) {
        failed = true;
      }
    };
    std::vector<std::thread> threads;
    for (int64_t i = 1; i < a->num_threads && i * LANES < a->B; i++) threads.emplace_back(work);
    work();
    for (auto &thread : threads) thread.join();
    return failed ? 1 : 0;
  } catch (...) {
    return 1;
  }
}

// The particle of every step that each final slot (B) descends from: (T, B).
extern "C" void trace_back(int64_t T, int64_t B, int64_t P, const int64_t *ancestors,
                           const int64_t *slots, int64_t *lineage) {
  for (int64_t b = 0; b < B; b++)
    for (int64_t t = T - 1, slot = slots[b]; t >= 0; t--) {
      lineage[t * B + b] = slot;
      slot = ancestors[(t * B + b) * P + slot];
    }
}
