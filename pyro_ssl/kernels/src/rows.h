// Rows of a cell: their states, and what they read of exogenous inputs.
#pragma once

#include <vector>

#include "cell.h"

namespace {

// States (h, c) of some rows: which rows they are is by pointer, so that resampling moves none.
struct Rows {
  const int size, width;
  std::vector<const float *> h, c, x;
  std::vector<float *> h_next, c_next;

  Rows(int size, int width)
      : size(size), width(width), h(size), c(size), x(size), h_next(size), c_next(size),
        data((size_t)size * width * 4) {}

  // All rows at h = c = 0.
  void start() {
    __builtin_memset(data.data, 0, sizeof(float) * 4 * size * width);
    side = 0;
    for (int r = 0; r < size; r++) h[r] = row(0, r), c[r] = row(2, r);
  }
  // A row at other states.
  void start(int r, const float *h_start, const float *c_start) {
    __builtin_memcpy(row(0, r), h_start, sizeof(float) * width);
    __builtin_memcpy(row(2, r), c_start, sizeof(float) * width);
  }
  // One step of the first n rows; of two sets of states one is written while the other is read.
  void step(const Cell &cell, int n, Floats &spare) {
    side ^= 1;
    for (int r = 0; r < n; r++) h_next[r] = row(side, r), c_next[r] = row(2 + side, r);
    cell.step(n, h.data(), c.data(), x.data(), h_next.data(), c_next.data(), spare.data);
    for (int r = 0; r < n; r++) h[r] = h_next[r], c[r] = c_next[r];
  }

 private:
  Floats data;
  int side = 0;
  float *row(int which, int r) { return data.data + ((size_t)which * size + r) * width; }
};

// What exogenous inputs add to what rows read.
class Exogenous {
 public:
  explicit Exogenous(const Cell &cell) : cell(cell), projected(cell.gates) {}

  // Take those (I) of a sequence's step, or none.
  void take(const float *inputs) {
    given = inputs != nullptr;
    if (given) cell.project(inputs, projected.data);
  }

 protected:
  const Cell &cell;
  Floats projected;
  bool given = false;
};

}  // namespace
