// A sweep of (conditional) SMC, `smc/sweep.py`, over latents that a Head knows: `states.cpp` has
// that of discrete ones, `vectors.cpp` that of vectors.
//
// Groups of sequences outside, time inside: all T steps of a group stay in cache, a sequence that
// ends early costs what its steps cost, and draws depend on neither group nor thread.
//
// Of a Head:
//   width              Values that one z_t takes
//   Reading            what a row of the cell reads: of(z_{t-1}, z_{t-2}, row), null where there
//                      is none; whether it looks_back() to z_{t-2}
//   outputs            memory for what the cell's output layer says of each particle
//   look_ahead         α_t of a lane's particles over e^lift, which is returned; s log p(ref_t) of
//                      each in `near`, if it is to be redrawn
//   draw               z_t from γ_t of each slot's ancestor
//   log_twist          log β_t(z_t)
//   before_start       z_{t-2} of a particle that the sweep goes on from, where it is read
//   score              s log p(ref | ...) of rows that follow the reference
//   end                what it keeps of a sequence
#pragma once

#include <atomic>
#include <cstring>
#include <system_error>
#include <thread>

#include "reference.h"

namespace {

constexpr float LOWEST = -3.4028234663852886e38f;
constexpr int LANES = 4;  // sequences in a group, so that single rows still share the weights

template <class Head> class Sweep {
  using Arguments = typename Head::Arguments;
  using Value = typename Head::Value;

 public:
  Sweep(const Arguments &a, const Cell &cell)
      : a(a), cell(cell), P(a.P), head(a, cell), now(LANES * P, cell.hidden),
        reading(a, cell, LANES * P), reference(a, cell, head, a.every ? LANES : 0),
        spare((size_t)LANES * P * cell.hidden), cdf(P), alpha(LANES * P), near(LANES * P),
        weights(LANES * P), h(P), c(P) {}

  // The sequences of a group, by falling length.
  void run(const int64_t *sequences, int n) {
    for (int i = 0; i < n; i++) {
      const int b = (int)sequences[i];
      lanes[i] = {b, (int)(a.lengths ? a.lengths[b] : a.T), a.scale ? a.scale[b] : 1.f};
    }
    now.start();
    if (a.z_start) go_on(n);
    const bool redraws = a.every && a.first_redraw < lanes[0].length;
    if (redraws) reference.read(lanes, n);
    for (int t = 0; t < a.T; t++) {
      while (n > 0 && lanes[n - 1].length <= t) end(--n);
      if (n == 0) return;
      predict(t, n);
      const bool redraw = redraws && t >= a.first_redraw && (t - a.first_redraw) % a.every == 0;
      for (int i = 0; i < n; i++) look_ahead(t, i, redraw);
      const double *w = weighted(t) ? weights.data() : nullptr;
      std::fill(first, first + n, a.reference ? 0 : -1);
      if (redraw) reference.redraw(t, lanes, n, now, near.data(), w, first);
      for (int i = 0; i < n; i++) draw(t, i);
    }
    while (n > 0) end(--n);
  }

 private:
  const Arguments &a;
  const Cell &cell;
  const int P;
  Head head;
  Lane lanes[LANES];
  int first[LANES];  // ancestor of the reference's step
  Rows now;          // every particle, having read z_{t-1}
  typename Head::Reading reading;
  Reference<Head> reference;
  Floats spare;
  std::vector<double> cdf, alpha, near, weights;
  std::vector<const float *> h, c;  // of one lane, in the order of its new particles

  // Whether the particles of step t - 1 have weights.
  bool weighted(int t) const { return a.weights && (t > 0 || a.w_start); }

  // Put the particles of a group where they were left.
  void go_on(int n) {
    for (int i = 0; i < n; i++) {
      const size_t from = (size_t)lanes[i].b * P;
      for (int p = 0; p < P; p++) {
        now.start(i * P + p, a.h_start + (from + p) * a.H, a.c_start + (from + p) * a.H);
        if (a.w_start) weights[i * P + p] = a.w_start[from + p];
      }
    }
  }

  // Read z_{t-1} into the states, and p(z_t | z_{1:t-1}) out of them.
  void predict(int t, int n) {
    for (int i = 0; i < n; i++) {
      const size_t b = lanes[i].b, last = ((t - 1) * a.B + b) * P;
      const Value *from = a.particles(t, b, Head::width), *before = nullptr;
      if (t > 0) before = a.particles(t - 1, b, Head::width);
      reading.take(a.inputs ? a.inputs + (t * a.B + b) * a.I : nullptr);
      for (int p = 0; p < P; p++) {
        const Value *z = from ? from + p * Head::width : nullptr, *z_before = nullptr;
        if (before) z_before = before + a.ancestors[last + p] * Head::width;
        if (t == 0 && from) z_before = head.before_start(b * P + p);
        now.x[i * P + p] = reading.of(z, z_before, i * P + p);
      }
    }
    now.step(cell, n * P, spare);
    cell.read_out(n * P, now.h.data(), head.outputs.data);
  }

  // α_t w_{t-1} of a lane, and the evidence of its step.
  void look_ahead(int t, int i, bool redraw) {
    const size_t tb = (size_t)t * a.B + lanes[i].b;
    double *const weight = alpha.data() + i * P, *const w = weights.data() + i * P;
    const double lift =
        head.look_ahead(t, i, lanes[i], redraw, now.h.data() + i * P, weight, near.data() + i * P);
    double sum = 0;
    for (int p = 0; p < P; p++) {
      if (weighted(t)) weight[p] *= w[p];
      a.chosen_by[tb * P + p] = weight[p];
      sum += weight[p];
    }
    a.log_likelihood[tb] = std::log(sum / P) + lift;
  }

  // Ancestors, z_t from γ_t of each slot's ancestor, its weight, and the states in their order.
  void draw(int t, int i) {
    const size_t tb = (size_t)t * a.B + lanes[i].b;
    int64_t *ancestors = a.ancestors + tb * P;
    Value *z = a.z + tb * P * Head::width;
    resample(tb, i, ancestors);
    head.draw(tb, i, ancestors, z);
    if (a.reference) std::copy_n(a.reference + tb * Head::width, Head::width, z);
    for (int p = 0; p < P; p++) {
      const int row = i * P + (int)ancestors[p];
      h[p] = now.h[row], c[p] = now.c[row];
    }
    std::copy(h.begin(), h.end(), now.h.begin() + i * P);
    std::copy(c.begin(), c.end(), now.c.begin() + i * P);
    if (!a.weights) return;
    double *w = weights.data() + i * P;
    for (int p = 0; p < P; p++) w[p] = -(double)head.log_twist(tb, z + p * Head::width);
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
      if (a.weights) a.weights[row] = lane.length || a.w_start ? weights[i * P + p] : 1.0;
    }
    head.end(lane);
    for (int64_t t = lane.length; t < a.T; t++) {
      const size_t tb = t * a.B + lane.b;
      a.log_likelihood[tb] = 0;
      std::fill_n(a.z + tb * P * Head::width, P * Head::width, 0);
      for (int p = 0; p < P; p++) a.ancestors[tb * P + p] = p, a.chosen_by[tb * P + p] = 1;
    }
  }
};

// Run all sequences, on several threads, with a cell whose projected inputs are made of some rows;
// returns 0, or 1 where memory did not suffice.
template <class Head>
int sweep_all(const typename Head::Arguments &a, int rows, int outputs) {
  try {
    const Cell cell({(int)a.kind, rows, (int)a.H, (int)a.I, a.table, a.exogenous, a.recurrent,
                     a.to_m, a.bias_h, a.head, a.head_bias, outputs});
    std::atomic<int64_t> next{0};
    std::atomic<bool> failed{false};
    auto work = [&] {
      try {
        Sweep<Head> sweep(a, cell);
        for (int64_t b; (b = next.fetch_add(LANES)) < a.B;)
          sweep.run(a.order + b, (int)std::min<int64_t>(LANES, a.B - b));
      } catch (...) {
        failed = true;
      }
    };
    std::vector<std::thread> threads;
    try {
      for (int64_t i = 1; i < a.num_threads && i * LANES < a.B; i++) threads.emplace_back(work);
    } catch (const std::system_error &) {  // no more to be had: those that there are do the work
    }
    work();
    for (auto &thread : threads) thread.join();
    return failed ? 1 : 0;
  } catch (...) {
    return 1;
  }
}

}  // namespace
