// One step of a recurrent cell over many rows, and its output layer, where torch does the rest of a
// sweep: what rows read, numbers by the cell's table, to states and outputs.
#include <atomic>

#include "parallel.h"
#include "rows.h"

namespace {

// `kernels/step.py` has the same fields in the same order.
struct StepArguments {
  int64_t N, threads;
  const float *read;              // (N, R), or null at the start
  const float *h, *c;             // (N, H)
  float *h_next, *c_next, *out;   // (N, H) twice, and (N, outputs)
};

constexpr int CHUNK = 48;  // rows whose projected inputs stay in cache

class Step {
 public:
  Step(const CellWeights &w) : cell(w), numbers(w.rows - 2), outputs(w.head_size) {}

  void run(const StepArguments &a, int64_t from, int64_t to) const {
    Floats x((size_t)CHUNK * cell.gates), y((size_t)CHUNK * cell.out);
    Floats spare((size_t)CHUNK * cell.hidden), state((size_t)3 * CHUNK * cell.hidden);
    const float *h[CHUNK], *c[CHUNK], *read[CHUNK];
    float *h_next[CHUNK], *c_next[CHUNK];
    // Rows that begin where a vector may are used where they are.
    const bool in_place = cell.hidden == cell.H && aligned(a.c) && aligned(a.h_next) && aligned(a.c_next);
    for (int64_t first = from; first < to; first += CHUNK) {
      const int n = (int)std::min<int64_t>(CHUNK, to - first);
      for (int r = 0; r < n; r++) {
        const size_t row = (first + r) * cell.H;
        float *own = state.data + (size_t)3 * r * cell.hidden;
        h[r] = a.h + row, c[r] = in_place ? a.c + row : own;
        h_next[r] = in_place ? a.h_next + row : own + cell.hidden;
        c_next[r] = in_place ? a.c_next + row : own + 2 * cell.hidden;
        if (!in_place) std::copy_n(a.c + row, cell.H, own);
        read[r] = project(a.read ? a.read + (first + r) * numbers : nullptr,
                          x.data + (size_t)r * cell.gates);
      }
      cell.step(n, h, c, read, h_next, c_next, spare.data);
      cell.read_out(n, h_next, y.data);
      for (int r = 0; r < n; r++) {
        const size_t row = (first + r) * cell.H;
        if (!in_place) std::copy_n(h_next[r], cell.H, a.h_next + row);
        if (!in_place) std::copy_n(c_next[r], cell.H, a.c_next + row);
        std::copy_n(y.data + (size_t)r * cell.out, outputs, a.out + (first + r) * outputs);
      }
    }
  }

 private:
  const Cell cell;
  const int numbers, outputs;

  static bool aligned(const float *p) { return (uintptr_t)p % 64 == 0; }

  // The table has a row for each number, then the bias, and the bias with the start flag.
  const float *project(const float *read, float *to) const {
    if (!read) return cell.row(numbers + 1);
    const float *bias = cell.row(numbers);
    for (int j = 0; j < cell.gates; j += VL) {
      vec sum = at(bias + j);
      for (int d = 0; d < numbers; d++) sum += read[d] * at(cell.row(d) + j);
      at(to + j) = sum;
    }
    return to;
  }
};

}  // namespace

// A step with some weights, whose table has `rows`, to be freed; null where memory did not suffice.
extern "C" void *step_new(int64_t kind, int64_t rows, int64_t H, int64_t outputs,
                          const float *table, const float *recurrent, const float *to_m,
                          const float *bias_h, const float *head, const float *head_bias) {
  try {
    return new Step({(int)kind, (int)rows, (int)H, 0, table, nullptr, recurrent, to_m, bias_h, head,
                     head_bias, (int)outputs});
  } catch (...) {
    return nullptr;
  }
}
extern "C" void step_free(void *step) { delete (Step *)step; }
// Returns 1 where memory did not suffice.
extern "C" int step_run(const void *step, const StepArguments *a) {
  std::atomic<bool> failed{false};
  in_parallel(a->N, 1024, a->threads, [&](int64_t from, int64_t to) {
    try {
      ((const Step *)step)->run(*a, from, to);
    } catch (...) {
      failed = true;
    }
  });
  return failed ? 1 : 0;
}
