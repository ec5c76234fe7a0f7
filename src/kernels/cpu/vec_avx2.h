// Vec for AVX2 with FMA and F16C: 8 floats in a register.
#pragma once

#include <immintrin.h>
#include <stdint.h>

#include <cstddef>

#define FRUGAL_INLINE inline __attribute__((always_inline))

namespace frugal::kernels::FRUGAL_ISA_NS {

struct Vec {
  static constexpr int kLanes = 8;
  __m256 v;
};
struct Mask {
  __m256 v;
};

FRUGAL_INLINE __m256i part_mask(int n) { return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)); }
FRUGAL_INLINE __m128i load_halves_part(const uint16_t* p, int n) {
  alignas(16) uint16_t halves[8] = {};
  for (int i = 0; i < n; ++i) __builtin_memcpy(&halves[i], p + i, 2);
  return _mm_load_si128(reinterpret_cast<const __m128i*>(halves));
}

FRUGAL_INLINE Vec set1(float x) { return {_mm256_set1_ps(x)}; }
FRUGAL_INLINE Vec zero() { return {_mm256_setzero_ps()}; }
FRUGAL_INLINE Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
FRUGAL_INLINE Vec load_part(const float* p, int n) { return {_mm256_maskload_ps(p, part_mask(n))}; }
FRUGAL_INLINE void store(float* p, Vec a) { _mm256_storeu_ps(p, a.v); }
FRUGAL_INLINE void store_part(float* p, Vec a, int n) { _mm256_maskstore_ps(p, part_mask(n), a.v); }
FRUGAL_INLINE Vec load_f16(const uint16_t* p) { return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))}; }
FRUGAL_INLINE Vec load_f16_part(const uint16_t* p, int n) { return {_mm256_cvtph_ps(load_halves_part(p, n))}; }
FRUGAL_INLINE void store_f16_part(uint16_t* p, Vec a, int n) {
  const __m128i halves = _mm256_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  if (n == 8) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), halves);
    return;
  }
  alignas(16) uint16_t buffer[8];
  _mm_store_si128(reinterpret_cast<__m128i*>(buffer), halves);
  for (int i = 0; i < n; ++i) p[i] = buffer[i];
}
FRUGAL_INLINE Vec widen_bf16(__m128i halves) { return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16))}; }
FRUGAL_INLINE Vec load_bf16(const uint16_t* p) { return widen_bf16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
FRUGAL_INLINE Vec load_bf16_part(const uint16_t* p, int n) { return widen_bf16(load_halves_part(p, n)); }
FRUGAL_INLINE Vec load_i8(const int8_t* p) { return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))))}; }

FRUGAL_INLINE Vec add(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
FRUGAL_INLINE Vec sub(Vec a, Vec b) { return {_mm256_sub_ps(a.v, b.v)}; }
FRUGAL_INLINE Vec mul(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
FRUGAL_INLINE Vec div(Vec a, Vec b) { return {_mm256_div_ps(a.v, b.v)}; }
FRUGAL_INLINE Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
FRUGAL_INLINE Vec max(Vec a, Vec b) { return {_mm256_max_ps(a.v, b.v)}; }  // b where either is NaN
FRUGAL_INLINE Vec min(Vec a, Vec b) { return {_mm256_min_ps(a.v, b.v)}; }
FRUGAL_INLINE Vec abs(Vec a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }
FRUGAL_INLINE Vec copysign(Vec a, Vec b) { return {_mm256_or_ps(_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v), _mm256_and_ps(_mm256_set1_ps(-0.0f), b.v))}; }
FRUGAL_INLINE Vec round(Vec a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
FRUGAL_INLINE Vec power_of_two(Vec n) {  // n integral in [-127, 127], 0 for -127; anything for NaN
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n.v), _mm256_set1_epi32(127)), 23))};
}
FRUGAL_INLINE Mask less(Vec a, Vec b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)}; }
FRUGAL_INLINE Mask unordered(Vec a) { return {_mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q)}; }
FRUGAL_INLINE Vec select(Mask m, Vec a, Vec b) { return {_mm256_blendv_ps(b.v, a.v, m.v)}; }

FRUGAL_INLINE float reduce_add(Vec a) {
  __m128 x = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps(x, x, 1)));
}
FRUGAL_INLINE float reduce_max(Vec a) {
  __m128 x = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  x = _mm_max_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_max_ss(x, _mm_shuffle_ps(x, x, 1)));
}
FRUGAL_INLINE double reduce_add_double(Vec a) {
  const __m256d x = _mm256_add_pd(_mm256_cvtps_pd(_mm256_castps256_ps128(a.v)), _mm256_cvtps_pd(_mm256_extractf128_ps(a.v, 1)));
  const __m128d y = _mm_add_pd(_mm256_castpd256_pd128(x), _mm256_extractf128_pd(x, 1));
  return _mm_cvtsd_f64(_mm_add_sd(y, _mm_unpackhi_pd(y, y)));
}

FRUGAL_INLINE uint32_t max_bits_32(const float* x, uint32_t best) {
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
  __m256i top = _mm256_setzero_si256();
  for (int i = 0; i < 4; ++i) {
    top = _mm256_max_epu32(top, _mm256_and_si256(magnitude, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + 8 * i))));
  }
  __m128i t = _mm_max_epu32(_mm256_castsi256_si128(top), _mm256_extracti128_si256(top, 1));
  t = _mm_max_epu32(t, _mm_shuffle_epi32(t, 0x4e));
  t = _mm_max_epu32(t, _mm_shuffle_epi32(t, 0xb1));
  const uint32_t found = static_cast<uint32_t>(_mm_cvtsi128_si32(t));
  return found > best ? found : best;
}
FRUGAL_INLINE void quantize_32(const float* x, float inverse, int8_t* codes, int32_t sums[2]) {
  const __m256 top = _mm256_set1_ps(127), bottom = _mm256_set1_ps(-127), factor = _mm256_set1_ps(inverse);
  __m256i q[4];
  for (int i = 0; i < 4; ++i) {
    const __m256 value = _mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), factor);
    q[i] = _mm256_cvtps_epi32(_mm256_max_ps(_mm256_min_ps(value, top), bottom));
  }
  // The packs interleave 128-bit halves: dwords come out as 0 2 4 6 | 1 3 5 7 in groups of 4 codes.
  const __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
  const __m256i ordered = _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes), ordered);
  const __m256i ones = _mm256_set1_epi8(1);
  const __m256i quads = _mm256_madd_epi16(_mm256_maddubs_epi16(ones, ordered), _mm256_set1_epi16(1));
  for (int i = 0; i < 2; ++i) {
    __m128i s = i == 0 ? _mm256_castsi256_si128(quads) : _mm256_extracti128_si256(quads, 1);
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1));
    sums[i] = _mm_cvtsi128_si32(s);
  }
}

}  // namespace frugal::kernels::FRUGAL_ISA_NS
