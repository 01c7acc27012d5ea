#include <cstdint>

// The particle of every step that each final slot (B) descends from: (T, B).
extern "C" void trace_back(int64_t T, int64_t B, int64_t P, const int64_t *ancestors,
                           const int64_t *slots, int64_t *lineage) {
  for (int64_t b = 0; b < B; b++)
    for (int64_t t = T - 1, slot = slots[b]; t >= 0; t--) {
      lineage[t * B + b] = slot;
      slot = ancestors[(t * B + b) * P + slot];
    }
}
