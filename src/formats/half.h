// Scalar conversions between float and the 16-bit and 8-bit floats of model files: F16 (IEEE binary16), BF16, FP8 E4M3
// (the "fn" form: no infinities, NaN is S.1111.111), FP8 E5M2 (IEEE-like) and E8M0 (a power of two). Branch-free where a
// loop over them is hot, so that compilers vectorise it without F16C. All encoders round to nearest, ties to even.
#pragma once

#include <bit>
#include <cstdint>

namespace frugal::formats {

// Exact, subnormals and NaN payloads included.
inline float f16_to_float(uint16_t half) {
  const uint32_t magnitude = half & 0x7fffu;
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t normal = (magnitude << 13) + 0x38000000u;  // exponent bias 15 -> 127
  // A subnormal is magnitude * 2^-24: let the float adder normalise it (independent of the flush-to-zero modes, which would
  // erase a subnormal *float*): 2^-14 * (1 + magnitude / 1024) - 2^-14.
  const float subnormal = std::bit_cast<float>((magnitude << 13) + 0x38800000u) - std::bit_cast<float>(0x38800000u);
  uint32_t bits = magnitude < 0x0400u ? std::bit_cast<uint32_t>(subnormal) : normal;
  bits = magnitude >= 0x7c00u ? (magnitude << 13) | 0x7f800000u : bits;
  return std::bit_cast<float>(bits | sign);
}

// Values of 65520 and above become infinity; NaN stays NaN (quiet, upper payload kept).
inline uint16_t float_to_f16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t magnitude = bits & 0x7fffffffu;
  const uint32_t sign = (bits >> 16) & 0x8000u;
  // Normal: add half of the last kept bit, less one unless that bit is odd; a carry into the exponent is what rounding up means.
  const uint32_t normal = (magnitude - 0x38000000u + 0x0fffu + ((magnitude >> 13) & 1u)) >> 13;
  // Subnormal (< 2^-14): adding 0.5 aligns the unit in the last place of the sum to 2^-24, and the adder rounds.
  const float clamped = std::bit_cast<float>(magnitude < 0x38800000u ? magnitude : 0u);
  const uint32_t subnormal = std::bit_cast<uint32_t>(clamped + 0.5f) - 0x3f000000u;
  uint32_t half = magnitude < 0x38800000u ? subnormal : normal;
  half = magnitude >= 0x477ff000u ? 0x7c00u : half;
  half = magnitude > 0x7f800000u ? 0x7e00u | ((magnitude >> 13) & 0x3ffu) : half;
  return static_cast<uint16_t>(half | sign);
}

inline float round_to_f16(float value) { return f16_to_float(float_to_f16(value)); }

inline float bf16_to_float(uint16_t value) { return std::bit_cast<float>(static_cast<uint32_t>(value) << 16); }

// Rounds to infinity above the largest BF16; NaN stays NaN (quiet).
inline uint16_t float_to_bf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  return static_cast<uint16_t>(nan ? (bits >> 16) | 0x40u : rounded);
}

inline float f8e5m2_to_float(uint8_t value) { return f16_to_float(static_cast<uint16_t>(value << 8)); }

// As torch.float8_e5m2: beyond 57344 (from 61440, half way to the next step) becomes infinity, never saturates.
inline uint8_t float_to_f8e5m2(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t magnitude = bits & 0x7fffffffu;
  const uint32_t sign = (bits >> 24) & 0x80u;
  if (magnitude > 0x7f800000u) return static_cast<uint8_t>(sign | 0x7fu);
  if (magnitude >= 0x47700000u) return static_cast<uint8_t>(sign | 0x7cu);  // 61440
  if (magnitude < 0x38800000u) {                                            // below 2^-14: steps of 2^-16
    return static_cast<uint8_t>(sign | (std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 128.0f) - 0x43000000u));
  }
  return static_cast<uint8_t>(sign | ((magnitude - 0x38000000u + 0xfffffu + ((magnitude >> 21) & 1u)) >> 21));
}

inline float f8e4m3_to_float(uint8_t value) {
  const uint32_t magnitude = value & 0x7fu;
  const uint32_t sign = static_cast<uint32_t>(value & 0x80u) << 24;
  const float absolute = magnitude == 0x7fu ? std::bit_cast<float>(0x7fc00000u)
                         : magnitude < 8u   ? static_cast<float>(magnitude) * 0x1p-9f
                                            : std::bit_cast<float>((magnitude << 20) + 0x3c000000u);  // bias 7 -> 127
  return std::bit_cast<float>(std::bit_cast<uint32_t>(absolute) | sign);
}

// As torch.float8_e4m3fn since 2.13: saturates, so that everything beyond 448, infinity too, becomes 448. NaN stays NaN.
inline uint8_t float_to_f8e4m3(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t magnitude = bits & 0x7fffffffu;
  const uint32_t sign = (bits >> 24) & 0x80u;
  if (magnitude > 0x7f800000u) return static_cast<uint8_t>(sign | 0x7fu);
  if (magnitude >= 0x43e00000u) return static_cast<uint8_t>(sign | 0x7eu);  // 448
  if (magnitude < 0x3c800000u) {                                            // below 2^-6: steps of 2^-9
    return static_cast<uint8_t>(sign | (std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 16384.0f) - 0x46800000u));
  }
  return static_cast<uint8_t>(sign | ((magnitude - 0x3c000000u + 0x7ffffu + ((magnitude >> 20) & 1u)) >> 20));
}

// OCP microscaling scale: 2^(value - 127), 255 is NaN.
inline float e8m0_to_float(uint8_t value) {
  if (value == 255) return std::bit_cast<float>(0x7fc00000u);
  return std::bit_cast<float>(value == 0 ? 0x00400000u : static_cast<uint32_t>(value) << 23);
}

}  // namespace frugal::formats
