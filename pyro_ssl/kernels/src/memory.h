// Memory aligned for vectors.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>

namespace {

// Numbers, all 0 at first.
struct Floats {
  float *data;
  explicit Floats(size_t size) {
    size_t bytes = (size * sizeof(float) + 63) / 64 * 64 + 64;
    data = (float *)std::aligned_alloc(64, bytes);
    if (!data) throw std::bad_alloc();
    __builtin_memset(data, 0, bytes);
  }
  ~Floats() { std::free(data); }
  Floats(const Floats &) = delete;
  Floats &operator=(const Floats &) = delete;
};

}  // namespace
