// The reference path's own ancestors: `smc/ancestors.py`, for a group of sequences in step.
#pragma once

#include "arguments.h"
#include "resampling.h"
#include "rows.h"

namespace {

template <class Head> class Reference {
  using Arguments = typename Head::Arguments;
  using Value = typename Head::Value;

 public:
  Reference(const Arguments &a, const Cell &cell, const Head &head, int lanes)
      : a(a), cell(cell), head(head), P(a.P), near(lanes * P, cell.hidden),
        one(lanes, cell.hidden), reading(a, cell, lanes * P),
        spare((size_t)lanes * P * cell.hidden), outputs((size_t)lanes * P * cell.out),
        own((size_t)lanes * a.T), other((size_t)lanes * a.T), ratio(lanes), scores(lanes * P),
        proposed(lanes), cdf(P), replayed(lanes) {}

  // Score whole paths: log p(ref_s | ref_{1:s-1}), to a power. Lanes stand by falling length.
  void read(const Lane *lanes, int n) {
    one.start();
    for (int i = 0; i < n; i++) replayed[i] = i;
    for (int s = 0; s < lanes[0].length; s++) {
      while (lanes[n - 1].length <= s) n--;
      advance(s, -1, lanes, n);
      for (int i = 0; i < n; i++) own[(size_t)i * a.T + s] = scores[i];
    }
  }

  // Redraw the ancestors of step t of n lanes. `log_w` comes with log p(ref_t | z^p), `now` has the
  // particles, and `first` takes the ancestors.
  void redraw(int t, const Lane *lanes, int n, const Rows &now, double *log_w,
              const double *weights, int *first) {
    const int middle = std::min<int64_t>(t + a.lag, a.T);
    look_on(t, middle, lanes, n, now, log_w);
    const double *u = a.u_redraws + (size_t)t * a.B * 2;
    int m = 0;  // lanes whose proposal has to be decided, by what is left of the reference
    for (int i = 0; i < n; i++) {
      const double *w = weights ? weights + i * P : nullptr;
      proposed[i] = first[i] = pick(log_w + i * P, w, u[lanes[i].b * 2]);
      if (first[i] == 0 || middle >= lanes[i].length) continue;
      const Rows &from = middle > t + 1 ? near : now;
      one.h[m] = from.h[i * P + first[i]], one.c[m] = from.c[i * P + first[i]];
      first[i] = 0, ratio[m] = 0, replayed[m++] = i;
    }
    const int decided = m;
    for (int s = middle; m > 0; s++) {
      while (m > 0 && lanes[replayed[m - 1]].length <= s) m--;
      advance(s, t, lanes, m);
      for (int j = 0; j < m; j++) {
        const size_t at = (size_t)replayed[j] * a.T + s;
        other[at] = scores[j];
        ratio[j] += other[at] - own[at];
      }
    }
    for (int j = 0; j < decided; j++) {
      const int i = replayed[j];
      if (!(std::log(u[lanes[i].b * 2 + 1]) < ratio[j])) continue;
      first[i] = proposed[i];
      const auto from = other.begin() + (size_t)i * a.T;
      std::copy(from + middle, from + lanes[i].length, own.begin() + (size_t)i * a.T + middle);
    }
  }

 private:
  const Arguments &a;
  const Cell &cell;
  const Head &head;
  const int P;
  Rows near, one;  // of all prefixes for some steps, and of one for each lane
  typename Head::Reading reading;
  Floats spare, outputs;
  std::vector<double> own, other;  // (lanes, T): log p(ref_s | ...) of its own prefix, and another
  std::vector<double> ratio, scores;
  std::vector<int> proposed;
  std::vector<double> cdf;
  std::vector<int> replayed;  // the lanes that rows of `one` stand for

  // What a row reads before step s, its prefix having ended with particle p of step t - 1.
  const float *read_by(int s, int t, const Lane &lane, int p, int row) {
    const auto ref = [&](int s) { return a.reference + (s * a.B + lane.b) * Head::width; };
    const Value *before = nullptr;
    if (s > t + 1) before = s > 1 ? ref(s - 2) : nullptr;
    else if (t > 0) before = a.z + (((t - 1) * a.B + lane.b) * P + p) * Head::width;
    return reading.of(s ? ref(s - 1) : nullptr, before, row);
  }
  void take_inputs(int s, const Lane &lane) {
    reading.take(a.inputs ? a.inputs + (s * a.B + lane.b) * a.I : nullptr);
  }

  // One step along the reference, of one row for each of m lanes, and its scores.
  void advance(int s, int t, const Lane *lanes, int m) {
    for (int j = 0; j < m; j++) {
      const int i = replayed[j];
      take_inputs(s, lanes[i]);
      one.x[j] = read_by(s, t, lanes[i], proposed[i], j);
    }
    one.step(cell, m, spare);
    cell.read_out(m, one.h.data(), outputs.data);
    const auto lane_of = [&](int j) -> const Lane & { return lanes[replayed[j]]; };
    head.score(s, m, lane_of, outputs.data, scores.data());
  }

  // Add log p(ref_s | ...) of all prefixes, for steps t + 1 to `middle`.
  void look_on(int t, int middle, const Lane *lanes, int n, const Rows &now, double *log_w) {
    std::copy(now.h.begin(), now.h.begin() + n * P, near.h.begin());
    std::copy(now.c.begin(), now.c.begin() + n * P, near.c.begin());
    for (int s = t + 1; s < middle; s++) {
      while (n > 0 && lanes[n - 1].length <= s) n--;
      // Prefixes differ in z_{t-1}; from t on they have all read the same.
      const bool alike = s > t + 1 || !reading.looks_back();
      for (int i = 0; i < n; i++) {
        take_inputs(s, lanes[i]);
        const float *x = nullptr;
        for (int p = 0, row = i * P; p < P; p++, row++) {
          if (p == 0 || !alike) x = read_by(s, t, lanes[i], p, row);
          near.x[row] = x;
        }
      }
      near.step(cell, n * P, spare);
      cell.read_out(n * P, near.h.data(), outputs.data);
      const auto lane_of = [&](int r) -> const Lane & { return lanes[r / P]; };
      head.score(s, n * P, lane_of, outputs.data, scores.data());
      for (int r = 0; r < n * P; r++) log_w[r] += scores[r];
    }
  }

  int pick(const double *log_w, const double *weights, double u) {
    double greatest = *std::max_element(log_w, log_w + P), total = 0;
    for (int p = 0; p < P; p++) {
      double w = std::exp(log_w[p] - greatest);
      cdf[p] = total += weights ? w * weights[p] : w;
    }
    return invert(cdf.data(), P, u);
  }
};

}  // namespace
