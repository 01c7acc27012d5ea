// A recurrent cell and its output layer over a few rows: particles of one sequence or of several.
//
//   LSTM:   c' = σ(f) c + σ(i) tanh(g),  h' = σ(o) tanh(c'),  [i f g o] = x + W h
//   mLSTM:  the same of m = x_m * (W_m h) in place of h; or, with squash="output",
//           c' = σ(f) c + σ(i) g,  h' = tanh(σ(o) c' + b_h)
//
// Weights are packed in panels of two gates, (i, g) then (f, o), for VL units each, and scaled so
// that σ(x) = 1 / (1 + 2^a) and tanh(g) = (1 - 2^a) / (1 + 2^a) of what comes out, a. Each sum runs
// over k in the same order whatever the number of rows: a row's figures do not depend on the others.
#pragma once

#include "panels.h"

namespace {

enum Kind { LSTM = 0, MLSTM = 1, MLSTM_OUTPUT = 2 };

// What the caller has, row by row as torch keeps it; gates [i f g o], or [m g i f o] of an mLSTM.
struct CellWeights {
  int kind, rows, H, I;
  const float *table;      // (rows, G), what sums of projected inputs are made of
  const float *exogenous;  // (G, I)
  const float *recurrent;  // (4H, H)
  const float *to_m;       // (H, H), mLSTM
  const float *bias_h;     // (H), squash="output"
  const float *head;       // (K or 2D, H)
  const float *head_bias;
  int head_size;
};

class Cell {
 public:
  const int kind, H, units, hidden, gates, out;  // units = vectors of H; hidden, out: padded

  explicit Cell(const CellWeights &w)
      : kind(w.kind), H(w.H), units((w.H + VL - 1) / VL), hidden(units * VL),
        gates(4 * hidden + (w.kind == LSTM ? 0 : hidden)),
        out((w.head_size + VL - 1) / VL * VL), inputs(w.I), rows(w.rows),
        table((size_t)rows * gates), exogenous((size_t)inputs * gates),
        panels((size_t)4 * hidden * H), bias_h(hidden), to_m(w.kind == LSTM ? 0 : H, H),
        head(H, w.head_size) {
    const int G = w.kind == LSTM ? 4 * H : 5 * H;
    for (int z = 0; z < rows; z++) pack_projection(w.table + (size_t)z * G, 1, row(z));
    for (int k = 0; k < inputs; k++)
      pack_projection(w.exogenous + k, inputs, exogenous.data + (size_t)k * gates);
    for (int j = 0; j < 4 * H; j++)
      for (int k = 0; k < H; k++) panels.data[panel_at(j, k)] = scale(j) * w.recurrent[j * H + k];
    if (kind != LSTM)
      for (int j = 0; j < H; j++)
        for (int k = 0; k < H; k++) to_m.weight(k, j) = w.to_m[j * H + k];
    for (int j = 0; j < out; j++) {
      head.bias.data[j] = j < w.head_size ? w.head_bias[j] : -1e30f;  // no weight in a softmax
      for (int k = 0; k < H && j < w.head_size; k++) head.weight(k, j) = w.head[j * H + k];
    }
    if (kind == MLSTM_OUTPUT)
      for (int j = 0; j < H; j++) bias_h.data[j] = w.bias_h[j];
  }

  float *row(int z) { return table.data + (size_t)z * gates; }
  const float *row(int z) const { return table.data + (size_t)z * gates; }

  // What exogenous inputs (I) add to a row of the table.
  void project(const float *u, float *projected) const {
    for (int j = 0; j < gates; j += VL) {
      vec sum = vec{};
      for (int k = 0; k < inputs; k++) sum += u[k] * at(exogenous.data + (size_t)k * gates + j);
      at(projected + j) = sum;
    }
  }

  // One step of N rows: from h, c and projected inputs x to h_next, c_next. `spare` has N rows.
  void step(int N, const float *const *h, const float *const *c, const float *const *x,
            float *const *h_next, float *const *c_next, float *spare) const {
    for (int r = 0; r < N;) {
      const int n = block_of(N - r);
      with_constant(n, [&](auto R) {
        step_rows<R>(h + r, c + r, x + r, h_next + r, c_next + r, spare);
      });
      r += n;
    }
  }

  // Outputs W h + b of N rows, each `out` wide.
  void read_out(int N, const float *const *h, float *y) const { head.multiply(N, h, y); }

 private:
  const int inputs, rows;
  Floats table, exogenous, panels, bias_h;
  Panels to_m, head;

  // A projected input (G), its entries `stride` apart, as the rows of the table are packed.
  void pack_projection(const float *projected, int stride, float *packed) const {
    const float *of_gates = kind == LSTM ? projected : projected + (size_t)H * stride;
    for (int j = 0; j < 4 * H; j++) packed[gate_at(j)] = scale(j) * of_gates[(size_t)j * stride];
    if (kind != LSTM)
      for (int j = 0; j < H; j++) packed[4 * hidden + j] = projected[(size_t)j * stride];
  }
  // Gate j's place in i, g, f, o; torch's order is i f g o, and g i f o of an mLSTM.
  int order(int j) const {
    static constexpr int of_lstm[4] = {0, 2, 1, 3}, of_mlstm[4] = {1, 0, 2, 3};
    return (kind == LSTM ? of_lstm : of_mlstm)[j / H];
  }
  float scale(int j) const {
    if (order(j) == 1) return kind == MLSTM_OUTPUT ? 1.f : -2.f * LOG2_E;  // g
    return -LOG2_E;
  }
  size_t gate_at(int j) const {
    int unit = j % H;
    return (size_t)(unit / VL) * 4 * VL + order(j) * VL + unit % VL;
  }
  size_t panel_at(int j, int k) const {
    int unit = j % H, gate = order(j);
    size_t panel = (size_t)(unit / VL) * 2 + gate / 2;
    return ((panel * H + k) * 2 + gate % 2) * VL + unit % VL;
  }

  // J panels of two vectors: start + Σ_k W[k] h[k] of R rows.
  template <int R, int J, class Start>
  INLINE void sums(const float *w, const float *const *h, Start start, vec (*a)[2 * J]) const {
    const size_t size = (size_t)2 * VL * H;
    for (int r = 0; r < R; r++)
      for (int j = 0; j < 2 * J; j++) a[r][j] = start(r, j);
    for (int k = 0; k < H; k++, w += 2 * VL)
      for (int j = 0; j < J; j++) {
        vec w0 = at(w + j * size), w1 = at(w + j * size + VL);
        for (int r = 0; r < R; r++) {
          float s = h[r][k];
          a[r][2 * j] += s * w0;
          a[r][2 * j + 1] += s * w1;
        }
      }
  }

  template <int R>
  void step_rows(const float *const *h, const float *const *c, const float *const *x,
                 float *const *h_next, float *const *c_next, float *spare) const {
    const float *m[R];
    if (kind != LSTM) {
      to_m.multiply(R, h, spare);
      for (int r = 0; r < R; r++) {
        float *row = spare + (size_t)r * hidden;
        for (int j = 0; j < hidden; j += VL) at(row + j) *= at(x[r] + 4 * hidden + j);
        m[r] = row;
      }
      h = m;
    }
    // Few rows leave registers for several panels at once, whose sums do not wait for each other.
    constexpr int J = R * 8 <= 2 * MAX_ROWS ? 4 : R * 4 <= 2 * MAX_ROWS ? 2 : 1;
    vec num[R] = {}, den[R] = {};
    int q = 0;
    for (; q + J <= 2 * units; q += J) some_panels<R, J>(q, h, c, x, h_next, c_next, num, den);
    if constexpr (J > 2)
      for (; q < 2 * units; q += 2) some_panels<R, 2>(q, h, c, x, h_next, c_next, num, den);
  }

  // Panels q .. q + J - 1: an even one has i and g of VL units, the odd one after it f and o.
  template <int R, int J>
  INLINE void some_panels(int q, const float *const *h, const float *const *c,
                          const float *const *x, float *const *h_next, float *const *c_next,
                          vec *num, vec *den) const {
    vec a[R][2 * J];
    const float *w = panels.data + (size_t)q * 2 * VL * H;
    sums<R, J>(w, h, [&](int r, int j) { return at(x[r] + (2 * q + j) * VL); }, a);
    for (int j = 0; j < J; j++)
      for (int r = 0; r < R; r++) {
        vec first = a[r][2 * j], second = a[r][2 * j + 1];
        if ((q + j) % 2 == 0) read_in(first, second, num[r], den[r]);
        else finish(first, second, num[r], den[r], (q + j) / 2 * VL, c[r], h_next[r], c_next[r]);
      }
  }

  // σ(i) tanh(g), or σ(i) g, as num / den
  INLINE void read_in(vec i, vec g, vec &num, vec &den) const {
    vec e_i = exp2_of_gate(i);
    if (kind == MLSTM_OUTPUT) {
      num = g;
      den = 1.f + e_i;
    } else {
      vec e_g = exp2_of_gate(g);
      num = 1.f - e_g;
      den = (1.f + e_i) * (1.f + e_g);
    }
  }

  // c' = c / (1 + 2^f) + num / den by one division, then h'
  INLINE void finish(vec f, vec o, vec num, vec den, int unit, const float *c, float *h_next,
                     float *c_next) const {
    vec forget = 1.f + exp2_of_gate(f), e_o = exp2_of_gate(o);
    vec c_new = (at(c + unit) * den + num * forget) * reciprocal(forget * den);
    at(c_next + unit) = c_new;
    if (kind == MLSTM_OUTPUT) {
      vec y = c_new * reciprocal(1.f + e_o) + at(bias_h.data + unit);
      vec e = exp2_of_gate(y * (-2.f * LOG2_E));
      at(h_next + unit) = (1.f - e) * reciprocal(1.f + e);
    } else {
      vec e = exp2_of_gate(c_new * (-2.f * LOG2_E));
      at(h_next + unit) = (1.f - e) * reciprocal((1.f + e_o) * (1.f + e));
    }
  }
};

}  // namespace
