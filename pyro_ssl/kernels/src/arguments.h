// What a sweep is given: sizes, pointers to contiguous arrays, null where there is none.
// `kernels/sweeps.py`, `states.py` and `vectors.py` have the same fields in the same order.
#pragma once

#include <cstddef>
#include <cstdint>

// Of any sweep; a z is one Value, or D of them.
template <class Value> struct SweepArguments {
  int64_t T, B, P, H, I, kind, systematic, every, first_redraw, lag, num_threads;
  int64_t size;  // K or D
  const float *table, *recurrent, *to_m, *bias_h, *head, *head_bias, *exogenous;
  const float *scale;         // (B), power of p(z_t | z_{1:t-1})
  const float *inputs;        // (T, B, I), exogenous
  const int64_t *lengths;     // (B)
  const int64_t *order;       // (B), sequences by falling length
  const Value *reference;     // (T, B)
  const double *u_ancestors;  // (T, B, 1 if systematic, else P)
  const double *u_redraws;    // (T, B, 2)
  Value *z;                   // (T, B, P)
  int64_t *ancestors;         // (T, B, P)
  double *log_likelihood;     // (T, B)
  double *chosen_by;          // (T, B, P)
  double *weights;            // (B, P), where there is a twist
  float *h, *c;               // (B, P, H)
  // Particles that it goes on from, null where it begins: z_{t-1}, the states, their weights.
  const Value *z_start;       // (B, P)
  const float *h_start, *c_start;
  const double *w_start;      // null where all are equal

  // z_{t-1} of a sequence's particles, of so many numbers each; null where there is none.
  const Value *particles(int64_t t, size_t b, int width) const {
    if (t > 0) return z + ((t - 1) * B + b) * P * width;
    return z_start ? z_start + b * P * width : nullptr;
  }
};

struct StatesArguments : SweepArguments<int64_t> {
  const float *emission;  // (T, B, K), log p(x_t | z_t = k) + log β_t(k)
  const float *twist;     // (T, B, K), log β_t(k)
  const float *u_z;       // (T, B, P)
};

// A quadratic function of z: c + b (z - m) - ½ (z - m) Λ (z - m)
struct QuadraticArguments {
  const float *center, *constant, *linear, *precision;  // (T, B) of m (D), c, b (D), Λ (D, D)
};

struct VectorsArguments : SweepArguments<float> {
  QuadraticArguments emission;  // log p(x_t | z_t) + log β_t(z_t)
  QuadraticArguments twist;     // log β_t(z_t)
  const float *noise;           // (T, B, P, D), standard normal
  const float *min_scale;       // one number
  const float *initial;         // (2, D), moments of z_1, where means are steps from z_{t-1}
  const float *per_increment;   // one number, where the cell reads increments
  const float *unit, *matrix;   // q (D) and A (D, D) of the chain that the cell corrects,
  const float *drift;           // and its b + G u_t, (T, B, D), where there is one
  float *last;                  // (B, P, D + 1), [z_{t-2}; 1], where it does
  const float *last_start;      // the same of the particles that it goes on from
};

namespace {

// A sequence of a group.
struct Lane {
  int b, length;
  float power;
};

}  // namespace
