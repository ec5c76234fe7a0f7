// Vec for AVX-512 (F, BW, VL, DQ): 16 floats in a register. Compiled a second time in the tests with SIMDe in place of the
// instructions (FRUGAL_SIMDE), so only intrinsics that SIMDe 0.7.4 emulates are used.
#pragma once

#ifndef FRUGAL_SIMDE
#include <immintrin.h>
#endif
#include <stdint.h>

#include <cstddef>

#define FRUGAL_INLINE inline __attribute__((always_inline))

namespace frugal::kernels::FRUGAL_ISA_NS {

struct Vec {
  static constexpr int kLanes = 16;
  __m512 v;
};
struct Mask {
  __mmask16 v;
};

FRUGAL_INLINE __mmask16 part_mask(int n) { return static_cast<__mmask16>((1u << n) - 1); }
FRUGAL_INLINE __m512 join(__m256 low, __m256 high) {
  return _mm512_castpd_ps(_mm512_insertf64x4(_mm512_castps_pd(_mm512_castps256_ps512(low)), _mm256_castps_pd(high), 1));
}
FRUGAL_INLINE __m256 low_half(__m512 a) { return _mm512_castps512_ps256(a); }
FRUGAL_INLINE __m256 high_half(__m512 a) { return _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a), 1)); }

FRUGAL_INLINE Vec set1(float x) { return {_mm512_set1_ps(x)}; }
FRUGAL_INLINE Vec zero() { return {_mm512_setzero_ps()}; }
FRUGAL_INLINE Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
FRUGAL_INLINE void store(float* p, Vec a) { _mm512_storeu_ps(p, a.v); }
#ifdef FRUGAL_SIMDE
FRUGAL_INLINE Vec load_part(const float* p, int n) {
  float values[16] = {};
  for (int i = 0; i < n; ++i) __builtin_memcpy(&values[i], p + i, 4);
  return load(values);
}
FRUGAL_INLINE void store_part(float* p, Vec a, int n) {
  float values[16];
  store(values, a);
  for (int i = 0; i < n; ++i) p[i] = values[i];
}
#else
FRUGAL_INLINE Vec load_part(const float* p, int n) { return {_mm512_maskz_loadu_ps(part_mask(n), p)}; }
FRUGAL_INLINE void store_part(float* p, Vec a, int n) { _mm512_mask_storeu_ps(p, part_mask(n), a.v); }
#endif
FRUGAL_INLINE Vec load_f16(const uint16_t* p) {
  return {
      join(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8))))};
}
FRUGAL_INLINE Vec load_f16_part(const uint16_t* p, int n) {
  uint16_t halves[16] = {};
  for (int i = 0; i < n; ++i) __builtin_memcpy(&halves[i], p + i, 2);
  return load_f16(halves);
}
FRUGAL_INLINE void store_f16_part(uint16_t* p, Vec a, int n) {
  uint16_t buffer[16];
  uint16_t* target = n == 16 ? p : buffer;
  _mm_storeu_si128(reinterpret_cast<__m128i*>(target), _mm256_cvtps_ph(low_half(a.v), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(target + 8), _mm256_cvtps_ph(high_half(a.v), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  if (n == 16) return;
  for (int i = 0; i < n; ++i) p[i] = buffer[i];
}
FRUGAL_INLINE Vec load_bf16(const uint16_t* p) {
  const __m256i low = _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 16);
  const __m256i high = _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8))), 16);
  return {join(_mm256_castsi256_ps(low), _mm256_castsi256_ps(high))};
}
FRUGAL_INLINE Vec load_bf16_part(const uint16_t* p, int n) {
  uint16_t halves[16] = {};
  for (int i = 0; i < n; ++i) __builtin_memcpy(&halves[i], p + i, 2);
  return load_bf16(halves);
}
FRUGAL_INLINE Vec load_i8(const int8_t* p) { return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))}; }

FRUGAL_INLINE Vec add(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
FRUGAL_INLINE Vec sub(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
FRUGAL_INLINE Vec mul(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
FRUGAL_INLINE Vec div(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
FRUGAL_INLINE Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
FRUGAL_INLINE Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
FRUGAL_INLINE Vec min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
FRUGAL_INLINE Vec abs(Vec a) { return {_mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(a.v), _mm512_set1_epi32(0x7fffffff)))}; }
FRUGAL_INLINE Vec copysign(Vec a, Vec b) {
  const __m512i sign = _mm512_and_si512(_mm512_castps_si512(b.v), _mm512_set1_epi32(static_cast<int>(0x80000000)));
  return {_mm512_castsi512_ps(_mm512_or_si512(_mm512_castps_si512(abs(a).v), sign))};
}
FRUGAL_INLINE Vec round(Vec a) { return {_mm512_cvtepi32_ps(_mm512_cvtps_epi32(a.v))}; }
FRUGAL_INLINE Vec power_of_two(Vec n) {  // n integral in [-127, 127], 0 for -127; anything for NaN
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n.v), _mm512_set1_epi32(127)), 23))};
}
FRUGAL_INLINE Mask less(Vec a, Vec b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
FRUGAL_INLINE Mask unordered(Vec a) { return {_mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q)}; }
FRUGAL_INLINE Vec select(Mask m, Vec a, Vec b) { return {_mm512_mask_mov_ps(b.v, m.v, a.v)}; }

FRUGAL_INLINE float reduce_add(Vec a) {
  const __m256 y = _mm256_add_ps(low_half(a.v), high_half(a.v));
  __m128 x = _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps(x, x, 1)));
}
FRUGAL_INLINE float reduce_max(Vec a) {
  const __m256 y = _mm256_max_ps(low_half(a.v), high_half(a.v));
  __m128 x = _mm_max_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
  x = _mm_max_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_max_ss(x, _mm_shuffle_ps(x, x, 1)));
}
FRUGAL_INLINE double reduce_add_double(Vec a) {
  float values[16];
  store(values, a);
  double sum = 0;
  for (int i = 0; i < 16; ++i) sum += values[i];
  return sum;
}

FRUGAL_INLINE uint32_t max_bits_32(const float* x, uint32_t best) {
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  const __m512i a = _mm512_and_si512(magnitude, _mm512_loadu_si512(x));
  const __m512i b = _mm512_and_si512(magnitude, _mm512_loadu_si512(x + 16));
  const __m512i m = _mm512_max_epi32(a, b);
  const __m256i n = _mm256_max_epi32(_mm512_castsi512_si256(m), _mm512_extracti64x4_epi64(m, 1));
  __m128i t = _mm_max_epi32(_mm256_castsi256_si128(n), _mm256_extracti128_si256(n, 1));
  t = _mm_max_epi32(t, _mm_shuffle_epi32(t, 0x4e));
  t = _mm_max_epi32(t, _mm_shuffle_epi32(t, 0xb1));
  const uint32_t found = static_cast<uint32_t>(_mm_cvtsi128_si32(t));
  return found > best ? found : best;
}
FRUGAL_INLINE void quantize_32(const float* x, float inverse, int8_t* codes, int32_t sums[2]) {
  const __m512 top = _mm512_set1_ps(127), bottom = _mm512_set1_ps(-127), factor = _mm512_set1_ps(inverse);
  for (int i = 0; i < 2; ++i) {
    const __m512 value = _mm512_mul_ps(_mm512_loadu_ps(x + 16 * i), factor);
    const __m512i q = _mm512_cvtps_epi32(_mm512_max_ps(_mm512_min_ps(value, top), bottom));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + 16 * i), _mm512_cvtepi32_epi8(q));
    const __m256i s8 = _mm256_add_epi32(_mm512_castsi512_si256(q), _mm512_extracti64x4_epi64(q, 1));
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(s8), _mm256_extracti128_si256(s8, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1));
    sums[i] = _mm_cvtsi128_si32(s);
  }
}

}  // namespace frugal::kernels::FRUGAL_ISA_NS
