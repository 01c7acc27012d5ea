// What the sweep over states is given: sizes, pointers to contiguous arrays, null where there is
// none. `kernels/states.py` has the same fields in the same order.
#pragma once

#include <cstdint>

struct StatesArguments {
  int64_t T, B, P, K, H, I, kind, systematic, every, first_redraw, lag, num_threads;
  const float *table, *recurrent, *to_m, *bias_h, *head, *head_bias, *exogenous;
  const float *emission;      // (T, B, K), log p(x_t | z_t = k) + log β_t(k)
  const float *twist;         // (T, B, K), log β_t(k)
  const float *scale;         // (B), power of p(z_t | z_{1:t-1})
  const float *inputs;        // (T, B, I), exogenous
  const int64_t *lengths;     // (B)
  const int64_t *order;       // (B), sequences by falling length
  const int64_t *reference;   // (T, B)
  const float *u_z;           // (T, B, P)
  const double *u_ancestors;  // (T, B, 1 if systematic, else P)
  const double *u_redraws;    // (T, B, 2)
  int64_t *z, *ancestors;     // (T, B, P)
  double *log_likelihood;     // (T, B)
  double *chosen_by;          // (T, B, P)
  double *weights;            // (B, P), written where there is a twist
  float *h, *c;               // (B, P, H)
};

namespace {

// A sequence of a group.
struct Lane {
  int b, length;
  float power;
};

}  // namespace
