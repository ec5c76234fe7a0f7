// The 12 bytes of packed integer scales of Q3_K, Q4_K and Q5_K.
#pragma once

#include <cstdint>

namespace frugal::formats {

// Q4_K, Q5_K: eight six-bit scales and eight six-bit minimums. Bytes 0-3: scales 0-3, bytes 4-7: minimums 0-3; their upper two
// bits are the upper two bits of scale and minimum 4-7, whose lower nibbles share bytes 8-11 (scale low, minimum high).
inline void unpack_scales_and_minimums(const uint8_t packed[12], uint8_t scales[8], uint8_t minimums[8]) {
  for (int g = 0; g < 4; ++g) {
    scales[g] = packed[g] & 0x3f;
    minimums[g] = packed[4 + g] & 0x3f;
    scales[4 + g] = static_cast<uint8_t>((packed[8 + g] & 0x0f) | (packed[g] >> 6) << 4);
    minimums[4 + g] = static_cast<uint8_t>((packed[8 + g] >> 4) | (packed[4 + g] >> 6) << 4);
  }
}

inline void pack_scales_and_minimums(const uint8_t scales[8], const uint8_t minimums[8], uint8_t packed[12]) {
  for (int g = 0; g < 4; ++g) {
    packed[g] = static_cast<uint8_t>(scales[g] | (scales[4 + g] >> 4) << 6);
    packed[4 + g] = static_cast<uint8_t>(minimums[g] | (minimums[4 + g] >> 4) << 6);
    packed[8 + g] = static_cast<uint8_t>((scales[4 + g] & 0x0f) | (minimums[4 + g] & 0x0f) << 4);
  }
}

// Q3_K: sixteen scales in -32..31, biased by 32. Lower nibbles: bytes 0-7 (low nibble: scale g, high: scale g + 8); upper two
// bits: byte 8 + g % 4, bits 2 (g / 4).
inline void unpack_signed_scales(const uint8_t packed[12], int8_t scales[16]) {
  for (int g = 0; g < 16; ++g) {
    const int low = (packed[g % 8] >> (4 * (g / 8))) & 0x0f;
    const int high = (packed[8 + g % 4] >> (2 * (g / 4))) & 3;
    scales[g] = static_cast<int8_t>((low | high << 4) - 32);
  }
}

inline void pack_signed_scales(const int8_t scales[16], uint8_t packed[12]) {
  for (int i = 0; i < 12; ++i) packed[i] = 0;
  for (int g = 0; g < 16; ++g) {
    const int biased = scales[g] + 32;
    packed[g % 8] = static_cast<uint8_t>(packed[g % 8] | (biased & 0x0f) << (4 * (g / 8)));
    packed[8 + g % 4] = static_cast<uint8_t>(packed[8 + g % 4] | (biased >> 4) << (2 * (g / 4)));
  }
}

}  // namespace frugal::formats
