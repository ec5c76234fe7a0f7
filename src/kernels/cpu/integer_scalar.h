// Integer dot products of one block for any machine: the layout and the sums of the AVX2 form.
#pragma once

#include "kernels/cpu/vec_scalar.h"

namespace frugal::kernels::FRUGAL_ISA_NS {

inline constexpr int kLaneRows = 8;
inline constexpr bool kSignedBytes = true;
inline constexpr int kTokenTile = 4;

// The code of vector v (0..7: step * 2 + half) at byte i of a unit.
template <int Bits>
FRUGAL_INLINE int code_at(const uint8_t* unit, int v, int i) {
  if constexpr (Bits == 8) return static_cast<int8_t>(unit[v * 32 + i]);
  if constexpr (Bits == 4) return (unit[v / 2 * 32 + i] >> (v % 2 * 4)) & 15;
  if constexpr (Bits == 5) return code_at<4>(unit, v, i) | (((unit[128 + i] >> v) & 1) << 4);
  if constexpr (Bits == 2) return (unit[v / 4 * 32 + i] >> (v % 4 * 2)) & 3;
  if constexpr (Bits == 6) return code_at<4>(unit, v, i) | (code_at<2>(unit + 128, v, i) << 4);
  if constexpr (Bits == 3) return code_at<2>(unit, v, i) | (((unit[64 + i] >> v) & 1) << 2);
}

template <int Bits>
FRUGAL_INLINE void unpack_unit(const uint8_t* unit, uint8_t* bytes) {
  for (int v = 0; v < 8; ++v) {
    for (int i = 0; i < 32; ++i) bytes[v * 32 + i] = static_cast<uint8_t>(code_at<Bits>(unit, v, i));
  }
}

template <int Bits, int Layout, int Block, int M>
FRUGAL_INLINE void block_dots(const uint8_t* units, const int8_t* const (&q)[M], int64_t column, Vec (&dots)[2][M]) {
  for (int m = 0; m < M; ++m) {
    int32_t sums[16] = {};
    for (int unit = 0; unit < Block / 16; ++unit) {
      for (int v = 0; v < 8; ++v) {
        const int8_t* activations = q[m] + column + unit * 16 + v / 2 * 4;
        for (int i = 0; i < 32; ++i) sums[v % 2 * 8 + i / 4] += code_at<Layout>(units + unit * Layout * 32, v, i) * activations[i % 4];
      }
    }
    for (int i = 0; i < 16; ++i) dots[i / 8][m].v[i % 8] = static_cast<float>(sums[i]);
  }
}

// Machine limits, see machine.h.
inline int64_t integer_loop(int64_t iterations, bool) {
  int8_t weights[256], activations[256];
  for (int i = 0; i < 256; ++i) weights[i] = activations[i] = static_cast<int8_t>(i & 15);
  int32_t sums[16] = {};
  for (int64_t n = 0; n < iterations; ++n) {
    for (int k = 0; k < 256; k += 16) {
      for (int i = 0; i < 16; ++i) sums[i] += weights[k + i] * activations[k + i];
    }
    asm volatile("" : : "r"(weights), "r"(sums) : "memory");
  }
  return iterations * 256;
}

inline float read_memory(const std::byte* data, int64_t bytes) {
  uint64_t sums[4] = {};
  for (int64_t i = 0; i + 32 <= bytes; i += 32) {
    uint64_t words[4];
    __builtin_memcpy(words, data + i, 32);
    for (int j = 0; j < 4; ++j) sums[j] ^= words[j];
  }
  return static_cast<float>((sums[0] ^ sums[1] ^ sums[2] ^ sums[3]) & 0xff);
}

}  // namespace frugal::kernels::FRUGAL_ISA_NS
