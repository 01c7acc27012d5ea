// The reference path's own ancestors: `smc/ancestors.py`, for a group of sequences in step.
#pragma once

#include "arguments.h"
#include "resampling.h"
#include "rows.h"

namespace {

class Reference {
 public:
  Reference(const StatesArguments &a, const Cell &cell, int lanes)
      : a(a), cell(cell), P(a.P), near(lanes * P, cell.hidden), one(lanes, cell.hidden),
        x(cell, lanes * P, a.inputs), spare((size_t)lanes * P * cell.hidden),
        logits((size_t)lanes * P * cell.out), own((size_t)lanes * a.T), other((size_t)lanes * a.T),
        ratio(lanes), proposed(lanes), cdf(P), replayed(lanes) {}

  // Score whole paths: log p(ref_s | ref_{1:s-1}), to a power. Lanes stand by falling length.
  void read(const Lane *lanes, int n) {
    one.start();
    for (int i = 0; i < n; i++) replayed[i] = i;
    for (int s = 0; s < lanes[0].length; s++) {
      while (lanes[n - 1].length <= s) n--;
      advance(s, lanes, n);
      for (int i = 0; i < n; i++) own[(size_t)i * a.T + s] = score(s, lanes[i], i);
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
      proposed[i] = first[i] = pick(log_w + i * P, weights ? weights + i * P : nullptr, u[lanes[i].b * 2]);
      if (first[i] == 0 || middle >= lanes[i].length) continue;
      const Rows &from = middle > t + 1 ? near : now;
      one.h[m] = from.h[i * P + first[i]], one.c[m] = from.c[i * P + first[i]];
      first[i] = 0, ratio[m] = 0, replayed[m++] = i;
    }
    const int decided = m;
    for (int s = middle; m > 0; s++) {
      while (m > 0 && lanes[replayed[m - 1]].length <= s) m--;
      advance(s, lanes, m);
      for (int j = 0; j < m; j++) {
        const size_t at = (size_t)replayed[j] * a.T + s;
        other[at] = score(s, lanes[replayed[j]], j);
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
  const StatesArguments &a;
  const Cell &cell;
  const int P;
  Rows near, one;  // of all prefixes for some steps, and of one for each lane
  Projection x;
  Floats spare, logits;
  std::vector<double> own, other;  // (lanes, T): log p(ref_s | ...) of its own prefix, and another
  std::vector<double> ratio;
  std::vector<int> proposed;
  std::vector<double> cdf;
  std::vector<int> replayed;  // the lanes that rows of `one` stand for

  int ref(int s, const Lane &lane) const { return (int)a.reference[s * a.B + lane.b]; }
  const float *read_by(int s, const Lane &lane, int row) {
    x.take(a.inputs ? a.inputs + (s * a.B + lane.b) * a.I : nullptr);
    return x.of(s ? ref(s - 1, lane) : cell.start(), row);
  }
  double score(int s, const Lane &lane, int row) const {
    return lane.power * log_softmax_at(logits.data + (size_t)row * cell.out, cell.out, ref(s, lane));
  }

  // One step along the reference, of one row for each of m lanes, and its logits.
  void advance(int s, const Lane *lanes, int m) {
    for (int j = 0; j < m; j++) one.x[j] = read_by(s, lanes[replayed[j]], j);
    one.step(cell, m, spare);
    cell.read_out(m, one.h.data(), logits.data);
  }

  // Add log p(ref_s | ...) of all prefixes, for steps t + 1 to `middle`.
  void look_on(int t, int middle, const Lane *lanes, int n, const Rows &now, double *log_w) {
    std::copy(now.h.begin(), now.h.begin() + n * P, near.h.begin());
    std::copy(now.c.begin(), now.c.begin() + n * P, near.c.begin());
    for (int s = t + 1; s < middle; s++) {
      while (n > 0 && lanes[n - 1].length <= s) n--;
      for (int i = 0; i < n; i++) {
        const float *input = read_by(s, lanes[i], i);
        for (int p = 0; p < P; p++) near.x[i * P + p] = input;
      }
      near.step(cell, n * P, spare);
      cell.read_out(n * P, near.h.data(), logits.data);
      for (int r = 0; r < n * P; r++) log_w[r] += score(s, lanes[r / P], r);
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
