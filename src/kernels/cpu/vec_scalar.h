// Vec for any machine: 8 floats in an array, in loops that the compiler may vectorise for its baseline. Includes of this file
// and of the bodies stay free of the standard library's inline functions: compiled with -mavx512f in one translation unit,
// such a function could be the copy that the linker keeps for everyone.
#pragma once

#include <stdint.h>

#include <cstddef>

#include "kernels/cpu/half.h"

#define FRUGAL_INLINE inline __attribute__((always_inline))

namespace frugal::kernels::FRUGAL_ISA_NS {

struct Vec {
  static constexpr int kLanes = 8;
  float v[8];
};
struct Mask {
  bool v[8];
};

#define FRUGAL_EACH for (int i = 0; i < 8; ++i)
// An operation a line, as in vec_avx2.h.
// clang-format off

FRUGAL_INLINE Vec set1(float x) { Vec r; FRUGAL_EACH r.v[i] = x; return r; }
FRUGAL_INLINE Vec zero() { return set1(0); }
FRUGAL_INLINE Vec load(const float* p) { Vec r; __builtin_memcpy(r.v, p, 32); return r; }
FRUGAL_INLINE Vec load_part(const float* p, int n) { Vec r = zero(); for (int i = 0; i < n; ++i) __builtin_memcpy(&r.v[i], p + i, 4); return r; }
FRUGAL_INLINE void store(float* p, Vec a) { __builtin_memcpy(p, a.v, 32); }
FRUGAL_INLINE void store_part(float* p, Vec a, int n) { for (int i = 0; i < n; ++i) p[i] = a.v[i]; }
FRUGAL_INLINE Vec load_f16_part(const uint16_t* p, int n) {
  Vec r = zero();
  for (int i = 0; i < n; ++i) { uint16_t h; __builtin_memcpy(&h, p + i, 2); r.v[i] = half_to_float(h); }
  return r;
}
FRUGAL_INLINE Vec load_f16(const uint16_t* p) { return load_f16_part(p, 8); }
FRUGAL_INLINE void store_f16_part(uint16_t* p, Vec a, int n) { for (int i = 0; i < n; ++i) p[i] = float_to_half(a.v[i]); }
FRUGAL_INLINE Vec load_bf16_part(const uint16_t* p, int n) {
  Vec r = zero();
  for (int i = 0; i < n; ++i) { uint16_t h; __builtin_memcpy(&h, p + i, 2); r.v[i] = __builtin_bit_cast(float, static_cast<uint32_t>(h) << 16); }
  return r;
}
FRUGAL_INLINE Vec load_bf16(const uint16_t* p) { return load_bf16_part(p, 8); }
FRUGAL_INLINE Vec load_i8(const int8_t* p) { Vec r; FRUGAL_EACH r.v[i] = static_cast<float>(p[i]); return r; }

FRUGAL_INLINE Vec add(Vec a, Vec b) { FRUGAL_EACH a.v[i] += b.v[i]; return a; }
FRUGAL_INLINE Vec sub(Vec a, Vec b) { FRUGAL_EACH a.v[i] -= b.v[i]; return a; }
FRUGAL_INLINE Vec mul(Vec a, Vec b) { FRUGAL_EACH a.v[i] *= b.v[i]; return a; }
FRUGAL_INLINE Vec div(Vec a, Vec b) { FRUGAL_EACH a.v[i] /= b.v[i]; return a; }
FRUGAL_INLINE Vec fma(Vec a, Vec b, Vec c) { FRUGAL_EACH a.v[i] = a.v[i] * b.v[i] + c.v[i]; return a; }  // not fused here
FRUGAL_INLINE Vec max(Vec a, Vec b) { FRUGAL_EACH a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i]; return a; }
FRUGAL_INLINE Vec min(Vec a, Vec b) { FRUGAL_EACH a.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i]; return a; }
FRUGAL_INLINE Vec abs(Vec a) { FRUGAL_EACH a.v[i] = __builtin_fabsf(a.v[i]); return a; }
FRUGAL_INLINE Vec copysign(Vec a, Vec b) { FRUGAL_EACH a.v[i] = __builtin_copysignf(a.v[i], b.v[i]); return a; }
// Adding and subtracting 1.5 * 2^23 rounds to nearest even for |x| < 2^22.
FRUGAL_INLINE Vec round(Vec a) { FRUGAL_EACH { volatile float t = a.v[i] + 0x1.8p23f; a.v[i] = t - 0x1.8p23f; } return a; }
FRUGAL_INLINE Vec power_of_two(Vec n) {  // n integral in [-127, 127], 0 for -127; anything for NaN
  FRUGAL_EACH n.v[i] = __builtin_bit_cast(float, static_cast<uint32_t>(n.v[i] == n.v[i] ? static_cast<int32_t>(n.v[i]) + 127 : 127) << 23);
  return n;
}
FRUGAL_INLINE Mask less(Vec a, Vec b) { Mask m; FRUGAL_EACH m.v[i] = a.v[i] < b.v[i]; return m; }
FRUGAL_INLINE Mask unordered(Vec a) { Mask m; FRUGAL_EACH m.v[i] = a.v[i] != a.v[i]; return m; }
FRUGAL_INLINE Vec select(Mask m, Vec a, Vec b) { FRUGAL_EACH b.v[i] = m.v[i] ? a.v[i] : b.v[i]; return b; }

FRUGAL_INLINE float reduce_add(Vec a) {  // the same tree as the AVX2 form
  const float x0 = a.v[0] + a.v[4], x1 = a.v[1] + a.v[5], x2 = a.v[2] + a.v[6], x3 = a.v[3] + a.v[7];
  return (x0 + x2) + (x1 + x3);
}
FRUGAL_INLINE float reduce_max(Vec a) { float m = a.v[0]; FRUGAL_EACH m = a.v[i] > m ? a.v[i] : m; return m; }
FRUGAL_INLINE double reduce_add_double(Vec a) { double s = 0; FRUGAL_EACH s += a.v[i]; return s; }

// Largest |x| over 32 floats as bits, so that NaN and infinity win; then the codes of those floats.
FRUGAL_INLINE uint32_t max_bits_32(const float* x, uint32_t best) {
  for (int i = 0; i < 32; ++i) {
    uint32_t bits;
    __builtin_memcpy(&bits, x + i, 4);
    bits &= 0x7fffffff;
    best = bits > best ? bits : best;
  }
  return best;
}
// Codes of 32 floats; returns the sums of the first and the second 16.
FRUGAL_INLINE void quantize_32(const float* x, float inverse, int8_t* codes, int32_t sums[2]) {
  sums[0] = sums[1] = 0;
  for (int i = 0; i < 32; ++i) {
    float value;
    __builtin_memcpy(&value, x + i, 4);
    value *= inverse;
    value = value < 127.0f ? value : 127.0f;
    value = value > -127.0f ? value : -127.0f;
    volatile float rounded = value + 0x1.8p23f;
    const int code = static_cast<int>(rounded - 0x1.8p23f);
    codes[i] = static_cast<int8_t>(code);
    sums[i / 16] += code;
  }
}
// clang-format on
#undef FRUGAL_EACH

}  // namespace frugal::kernels::FRUGAL_ISA_NS
