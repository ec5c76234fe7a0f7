// The AVX-512 bodies over SIMDe's emulation, for the tests: their arithmetic is checked on machines without AVX-512.
#define SIMDE_ENABLE_NATIVE_ALIASES
#define FRUGAL_SIMDE
#include <simde/x86/avx512.h>
#include <simde/x86/f16c.h>

// What SIMDe 0.7.4 lacks, lane by lane.
#ifndef _MM_FROUND_NO_EXC
#define _MM_FROUND_NO_EXC SIMDE_MM_FROUND_NO_EXC
#endif
namespace {

using __mmask16 = simde__mmask16;

template <typename To, typename From>
To as(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof(to));
  return to;
}
struct Bytes16 {
  int8_t v[16];
};
struct Integers16 {
  int32_t v[16];
};
struct Floats16 {
  float v[16];
};

inline __m512i emulated_cvtepi8_epi32(__m128i bytes) {
  const auto source = as<Bytes16>(bytes);
  Integers16 result;
  for (int i = 0; i < 16; ++i) result.v[i] = source.v[i];
  return as<__m512i>(result);
}
inline __m128i emulated_cvtepi32_epi8(__m512i integers) {
  const auto source = as<Integers16>(integers);
  Bytes16 result;
  for (int i = 0; i < 16; ++i) result.v[i] = static_cast<int8_t>(source.v[i]);
  return as<__m128i>(result);
}
inline __m512 emulated_cvtepi32_ps(__m512i integers) {
  const auto source = as<Integers16>(integers);
  Floats16 result;
  for (int i = 0; i < 16; ++i) result.v[i] = static_cast<float>(source.v[i]);
  return as<__m512>(result);
}
inline __m512i emulated_cvtps_epi32(__m512 floats) {
  const auto source = as<Floats16>(floats);
  Integers16 result;
  for (int i = 0; i < 16; ++i) {
    const bool fits = source.v[i] > -2147483648.0f && source.v[i] < 2147483648.0f;
    result.v[i] = fits ? static_cast<int32_t>(__builtin_nearbyintf(source.v[i])) : static_cast<int32_t>(0x80000000);
  }
  return as<__m512i>(result);
}

}  // namespace
#define _mm512_cvtepi8_epi32 emulated_cvtepi8_epi32
#define _mm512_cvtepi32_epi8 emulated_cvtepi32_epi8
#define _mm512_cvtepi32_ps emulated_cvtepi32_ps
#define _mm512_cvtps_epi32 emulated_cvtps_epi32

#define FRUGAL_ISA_NS emulated_avx512
#define FRUGAL_ISA_ID Isa::avx512
#include "kernels/cpu/integer_avx512.h"

#include "kernels/cpu/table_body.h"
