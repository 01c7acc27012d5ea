// Parts of a range on several threads; what is computed does not depend on how it is cut.
#pragma once

#include <algorithm>
#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

namespace {

// Call f(from, to) for parts of 0 .. n, each of `grain` at the least.
template <class F> void in_parallel(int64_t n, int64_t grain, int64_t threads, F &&f) {
  grain = std::max<int64_t>(grain, 1);
  const int64_t parts = std::clamp<int64_t>(n / grain, 1, std::max<int64_t>(threads, 1));
  std::vector<std::thread> others;
  int64_t from = 0;
  for (int64_t i = 1; i < parts; i++) {
    const int64_t to = n * i / parts;
    try {
      others.emplace_back([=, &f] { f(from, to); });
    } catch (const std::system_error &) {  // no more to be had
      break;
    }
    from = to;
  }
  f(from, n);
  for (auto &other : others) other.join();
}

}  // namespace
