// Integer dot products of one block for AVX2: maddubs multiplies 32 unsigned weight bytes by signed activation bytes and adds
// pairs into 16 bits.
//   up to 4 bits: 8 such sums of a pair stay below 8 * 2 * 15 * 127 = 30,480, so a whole block of 32 is summed in 16 bits and
//     widened once: one multiply and one add per 32 products, against multiply, widen and add (measured 1.7 times as fast).
//   5 and 6 bits: widened every 4 and 2 steps.   8 bits: |w| times sign(w) * activation, widened each step.
// Vector v = step * 2 + half of a unit holds 4 columns of 8 rows.
#pragma once

#include "kernels/cpu/vec_avx2.h"

namespace frugal::kernels::FRUGAL_ISA_NS {

inline constexpr int kLaneRows = 8;
inline constexpr bool kSignedBytes = true;
inline constexpr int kTokenTile = 4;

FRUGAL_INLINE __m256i load_bytes(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }

// Bits [Shift, Shift + Width) of each byte, moved to bit Target. The 16-bit shifts drag neighbours' bits, which the mask drops.
template <int Shift, int Width, int Target>
FRUGAL_INLINE __m256i field(__m256i bytes) {
  const __m256i mask = _mm256_set1_epi8(static_cast<char>(((1 << Width) - 1) << Target));
  if constexpr (Shift > Target) bytes = _mm256_srli_epi16(bytes, Shift - Target);
  if constexpr (Shift < Target) bytes = _mm256_slli_epi16(bytes, Target - Shift);
  return _mm256_and_si256(bytes, mask);
}

template <int Bits, int V>
FRUGAL_INLINE __m256i unpack(const uint8_t* unit) {
  if constexpr (Bits == 8) return load_bytes(unit + V * 32);
  if constexpr (Bits == 4) return field<V % 2 * 4, 4, 0>(load_bytes(unit + V / 2 * 32));
  if constexpr (Bits == 2) return field<V % 4 * 2, 2, 0>(load_bytes(unit + V / 4 * 32));
  if constexpr (Bits == 5) return _mm256_or_si256(unpack<4, V>(unit), field<V, 1, 4>(load_bytes(unit + 128)));
  if constexpr (Bits == 6) return _mm256_or_si256(unpack<4, V>(unit), field<V % 4 * 2, 2, 4>(load_bytes(unit + 128 + V / 4 * 32)));
  if constexpr (Bits == 3) return _mm256_or_si256(unpack<2, V>(unit), field<V, 1, 2>(load_bytes(unit + 64)));
}

// Keeps an accumulator where it is: g++ 12 reassociates chains of integer adds and spills (measured 20 % slower).
FRUGAL_INLINE void pin(__m256i& accumulator) { asm("" : "+x"(accumulator)); }

FRUGAL_INLINE __m256i broadcast_4(const int8_t* p) {
  int32_t four;
  __builtin_memcpy(&four, p, 4);
  return _mm256_set1_epi32(four);
}

template <int Bits, int V = 0>
FRUGAL_INLINE void unpack_unit(const uint8_t* unit, uint8_t* bytes) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(bytes + V * 32), unpack<Bits, V>(unit));
  if constexpr (V < 7) unpack_unit<Bits, V + 1>(unit, bytes);
}

template <int Bits, int Layout, int Step, int M>
FRUGAL_INLINE void step_dots(const uint8_t* unit, const int8_t* const (&q)[M], int64_t column, __m256i (&narrow)[2][M], __m256i (&wide)[2][M]) {
  const __m256i w0 = unpack<Layout, Step * 2>(unit), w1 = unpack<Layout, Step * 2 + 1>(unit);
  if constexpr (Bits == 8) {
    const __m256i ones = _mm256_set1_epi16(1);
    const __m256i m0 = _mm256_abs_epi8(w0), m1 = _mm256_abs_epi8(w1);
    for (int m = 0; m < M; ++m) {
      const __m256i a = broadcast_4(q[m] + column + Step * 4);
      wide[0][m] = _mm256_add_epi32(wide[0][m], _mm256_madd_epi16(_mm256_maddubs_epi16(m0, _mm256_sign_epi8(a, w0)), ones));
      wide[1][m] = _mm256_add_epi32(wide[1][m], _mm256_madd_epi16(_mm256_maddubs_epi16(m1, _mm256_sign_epi8(a, w1)), ones));
      pin(wide[0][m]);
      pin(wide[1][m]);
    }
  } else {
    for (int m = 0; m < M; ++m) {
      const __m256i a = broadcast_4(q[m] + column + Step * 4);
      narrow[0][m] = _mm256_add_epi16(narrow[0][m], _mm256_maddubs_epi16(w0, a));
      narrow[1][m] = _mm256_add_epi16(narrow[1][m], _mm256_maddubs_epi16(w1, a));
      pin(narrow[0][m]);
      pin(narrow[1][m]);
    }
  }
}

template <int M>
FRUGAL_INLINE void widen(__m256i (&narrow)[2][M], __m256i (&wide)[2][M]) {
  const __m256i ones = _mm256_set1_epi16(1);
  for (int h = 0; h < 2; ++h) {
    for (int m = 0; m < M; ++m) {
      wide[h][m] = _mm256_add_epi32(wide[h][m], _mm256_madd_epi16(narrow[h][m], ones));
      narrow[h][m] = _mm256_setzero_si256();
    }
  }
}

template <int Bits, int Layout, int Block, int M>
FRUGAL_INLINE void block_dots(const uint8_t* units, const int8_t* const (&q)[M], int64_t column, Vec (&dots)[2][M]) {
  __m256i narrow[2][M], wide[2][M];
  for (int h = 0; h < 2; ++h) {
    for (int m = 0; m < M; ++m) narrow[h][m] = wide[h][m] = _mm256_setzero_si256();
  }
#pragma GCC unroll 2
  for (int unit = 0; unit < Block / 16; ++unit) {
    const uint8_t* p = units + unit * Layout * 32;
    step_dots<Bits, Layout, 0>(p, q, column + unit * 16, narrow, wide);
    step_dots<Bits, Layout, 1>(p, q, column + unit * 16, narrow, wide);
    if constexpr (Bits == 6) widen(narrow, wide);
    step_dots<Bits, Layout, 2>(p, q, column + unit * 16, narrow, wide);
    step_dots<Bits, Layout, 3>(p, q, column + unit * 16, narrow, wide);
    if constexpr (Bits == 5 || Bits == 6) widen(narrow, wide);
  }
  if constexpr (Bits <= 4) widen(narrow, wide);
  for (int h = 0; h < 2; ++h) {
    for (int m = 0; m < M; ++m) dots[h][m] = {_mm256_cvtepi32_ps(wide[h][m])};
  }
}

// Machine limits, see machine.h: what block_dots does on 8 chains, weights in a register, activations from L1.
template <bool FourBit>
inline int64_t integer_chains(int64_t iterations) {
  int8_t activations[32] = {1, 2, 3};
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i weight = _mm256_set1_epi8(3);
  __m256i sums[8], total = _mm256_setzero_si256();
  for (int i = 0; i < 8; ++i) sums[i] = _mm256_setzero_si256();
  for (int64_t n = 0; n < iterations; ++n) {
#pragma GCC unroll 8
    for (int step = 0; step < 8; ++step) {
      const int8_t* unknown = activations;
      asm volatile("" : "+r"(unknown));  // loaded anew, without a clobber of memory: that would keep the sums there
      const __m256i a = broadcast_4(unknown + 4 * step);
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) {
        const __m256i products = _mm256_maddubs_epi16(weight, a);
        sums[i] = FourBit ? _mm256_add_epi16(sums[i], products) : _mm256_add_epi32(sums[i], _mm256_madd_epi16(products, ones));
        asm volatile("" : "+x"(sums[i]), "+x"(weight));  // volatile: equal chains would be merged
      }
    }
    for (int i = 0; FourBit && i < 8; ++i) {
      total = _mm256_add_epi32(total, _mm256_madd_epi16(sums[i], ones));
      sums[i] = _mm256_setzero_si256();
    }
  }
  for (int i = 0; i < 8; ++i) asm volatile("" : : "x"(sums[i]));
  asm volatile("" : : "x"(total));
  return iterations * 8 * 8 * 32;
}
inline int64_t integer_loop(int64_t iterations, bool four_bit) { return four_bit ? integer_chains<true>(iterations) : integer_chains<false>(iterations); }

inline float read_memory(const std::byte* data, int64_t bytes) {
  const auto* p = reinterpret_cast<const __m256i*>(data);
  __m256i sums[4];
  for (int i = 0; i < 4; ++i) sums[i] = _mm256_setzero_si256();
  for (int64_t i = 0; i + 128 <= bytes; i += 128, p += 4) {
    __builtin_prefetch(p + 32);
    __builtin_prefetch(p + 34);
    for (int j = 0; j < 4; ++j) sums[j] = _mm256_xor_si256(sums[j], _mm256_loadu_si256(p + j));
  }
  const __m256i all = _mm256_xor_si256(_mm256_xor_si256(sums[0], sums[1]), _mm256_xor_si256(sums[2], sums[3]));
  return static_cast<float>(_mm256_extract_epi8(all, 0));
}

}  // namespace frugal::kernels::FRUGAL_ISA_NS
