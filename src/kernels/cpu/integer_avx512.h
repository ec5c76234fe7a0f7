// Integer dot products of one block for AVX-512 VNNI: dpbusd multiplies 64 unsigned weight bytes by signed activation bytes
// and adds each 4 into 32 bits, without saturation, so codes of 8 bits need no trick. Vector v = step of a unit holds 4
// columns of 16 rows; a plane of single bits is a mask register.
#pragma once

#include "kernels/cpu/vec_avx512.h"

namespace frugal::kernels::FRUGAL_ISA_NS {

inline constexpr int kLaneRows = 16;
inline constexpr bool kSignedBytes = false;
#ifdef FRUGAL_SIMDE
inline constexpr int kTokenTile = 4;  // the same templates, half the time to compile the emulation
#else
inline constexpr int kTokenTile = 8;  // 8 independent sums hide dpbusd's latency of 5
#endif

template <int Shift, int Width, int Target>
FRUGAL_INLINE __m512i field(__m512i bytes) {
  const __m512i mask = _mm512_set1_epi8(static_cast<char>(((1 << Width) - 1) << Target));
  if constexpr (Shift > Target) bytes = _mm512_srli_epi16(bytes, Shift - Target);
  if constexpr (Shift < Target) bytes = _mm512_slli_epi16(bytes, Target - Shift);
  return _mm512_and_si512(bytes, mask);
}

template <int Value>
FRUGAL_INLINE __m512i add_bit(__m512i bytes, const uint8_t* mask_bytes) {
  uint64_t mask;
  __builtin_memcpy(&mask, mask_bytes, 8);
  return _mm512_mask_add_epi8(bytes, mask, bytes, _mm512_set1_epi8(Value));
}

template <int Bits, int V>
FRUGAL_INLINE __m512i unpack(const uint8_t* unit) {
  if constexpr (Bits == 8) return _mm512_loadu_si512(unit + V * 64);
  if constexpr (Bits == 4) return field<V % 2 * 4, 4, 0>(_mm512_loadu_si512(unit + V / 2 * 64));
  if constexpr (Bits == 2) return field<V * 2, 2, 0>(_mm512_loadu_si512(unit));
  if constexpr (Bits == 5) return add_bit<16>(unpack<4, V>(unit), unit + 128 + V * 8);
  if constexpr (Bits == 6) {
    const __m512i low = unpack<4, V>(unit), high = field<V * 2, 2, 4>(_mm512_loadu_si512(unit + 128));
    return _mm512_or_si512(low, high);
  }
  if constexpr (Bits == 3) return add_bit<4>(unpack<2, V>(unit), unit + 64 + V * 8);
}

template <int Bits, int V = 0>
FRUGAL_INLINE void unpack_unit(const uint8_t* unit, uint8_t* bytes) {
  const __m512i codes = unpack<Bits, V>(unit);
  _mm512_storeu_si512(bytes + V * 64, codes);
  if constexpr (V < 3) unpack_unit<Bits, V + 1>(unit, bytes);
}

template <int Layout, int V, int M>
FRUGAL_INLINE void step_dots(const uint8_t* unit, const int8_t* const (&q)[M], int64_t column, __m512i (&wide)[M]) {
  const __m512i w = unpack<Layout, V>(unit);
  for (int m = 0; m < M; ++m) {
    int32_t four;
    __builtin_memcpy(&four, q[m] + column + V * 4, 4);
    wide[m] = _mm512_dpbusd_epi32(wide[m], w, _mm512_set1_epi32(four));
  }
}

template <int Bits, int Layout, int Block, int M>
FRUGAL_INLINE void block_dots(const uint8_t* units, const int8_t* const (&q)[M], int64_t column, Vec (&dots)[1][M]) {
  __m512i wide[M];
  for (int m = 0; m < M; ++m) wide[m] = _mm512_setzero_si512();
#pragma GCC unroll 2
  for (int unit = 0; unit < Block / 16; ++unit) {
    const uint8_t* p = units + unit * Layout * 32;
    step_dots<Layout, 0>(p, q, column + unit * 16, wide);
    step_dots<Layout, 1>(p, q, column + unit * 16, wide);
    step_dots<Layout, 2>(p, q, column + unit * 16, wide);
    step_dots<Layout, 3>(p, q, column + unit * 16, wide);
  }
  for (int m = 0; m < M; ++m) dots[0][m] = {_mm512_cvtepi32_ps(wide[m])};
}

// Machine limits, see machine.h: 12 chains of dpbusd (it has a latency of 5 and may start twice per cycle).
inline int64_t integer_loop(int64_t iterations, bool) {
  alignas(64) int8_t activations[64] = {1, 2, 3};
  const __m512i weight = _mm512_set1_epi8(3);
  __m512i wide[12];
  for (int i = 0; i < 12; ++i) wide[i] = _mm512_setzero_si512();
  for (int64_t n = 0; n < iterations; ++n) {
    asm volatile("" : : "r"(activations) : "memory");
    const __m512i a = _mm512_loadu_si512(activations);
    for (int i = 0; i < 12; ++i) wide[i] = _mm512_dpbusd_epi32(wide[i], weight, a);
  }
  alignas(64) int32_t sums[16];
  for (int i = 0; i < 12; ++i) {
    _mm512_storeu_si512(sums, wide[i]);
    asm volatile("" : : "r"(sums) : "memory");
  }
  return iterations * 12 * 64;
}

inline float read_memory(const std::byte* data, int64_t bytes) {
  __m512i sums[4];
  for (int i = 0; i < 4; ++i) sums[i] = _mm512_setzero_si512();
  for (int64_t i = 0; i + 256 <= bytes; i += 256, data += 256) {
    for (int j = 0; j < 4; ++j) {
      __builtin_prefetch(data + 1024 + 64 * j);
      sums[j] = _mm512_xor_si512(sums[j], _mm512_loadu_si512(data + 64 * j));
    }
  }
  const __m512i all = _mm512_xor_si512(_mm512_xor_si512(sums[0], sums[1]), _mm512_xor_si512(sums[2], sums[3]));
  return static_cast<float>(_mm_cvtsi128_si32(_mm512_castsi512_si128(all)) & 0xff);
}

}  // namespace frugal::kernels::FRUGAL_ISA_NS
