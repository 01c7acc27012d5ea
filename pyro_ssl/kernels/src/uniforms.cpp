// Random numbers by counter: `smc/randomness.py`, bit for bit.
//
// Philox 4x32-10: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
#include <cstddef>
#include <cstdint>

namespace {

struct Words {
  uint32_t w[4];
};

inline Words philox(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t k0, uint32_t k1) {
  for (int round = 0; round < 10; round++) {
    const uint64_t p0 = (uint64_t)c0 * 0xD2511F53u, p1 = (uint64_t)c2 * 0xCD9E8D57u;
    c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
    c1 = (uint32_t)p1;
    c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
    c3 = (uint32_t)p0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

inline float number(const uint32_t *w, float) { return (w[0] >> 8) * 0x1p-24f; }
inline double number(const uint32_t *w, double) {
  return ((w[0] >> 5) * 0x1p26 + (w[1] >> 6)) * 0x1p-53;
}

// Numbers (T, B, n) of the steps from a first one on, each of sizeof(Number) / 4 words.
template <class Number>
void fill(uint64_t seed, int64_t purpose, int64_t first, int64_t T, int64_t B, int64_t n,
          const int64_t *sequences, Number *out) {
  constexpr int per_block = 16 / sizeof(Number), words = sizeof(Number) / 4;
  for (int64_t t = first; t < first + T; t++)
    for (int64_t b = 0; b < B; b++, out += n) {
      const uint64_t sequence = (uint64_t)sequences[b];
      for (int64_t i = 0; i < n; i += per_block) {
        const uint32_t block = (uint32_t)(i / per_block + (purpose << 28));
        const Words drawn = philox(block, (uint32_t)t, (uint32_t)sequence,
                                   (uint32_t)(sequence >> 32), (uint32_t)seed, (uint32_t)(seed >> 32));
        for (int64_t j = 0; j < per_block && i + j < n; j++)
          out[i + j] = number(drawn.w + j * words, Number());
      }
    }
}

}  // namespace

extern "C" void uniform_floats(int64_t seed, int64_t purpose, int64_t first, int64_t T, int64_t B,
                               int64_t n, const int64_t *sequences, float *out) {
  fill(seed, purpose, first, T, B, n, sequences, out);
}
extern "C" void uniform_doubles(int64_t seed, int64_t purpose, int64_t first, int64_t T, int64_t B,
                                int64_t n, const int64_t *sequences, double *out) {
  fill(seed, purpose, first, T, B, n, sequences, out);
}
