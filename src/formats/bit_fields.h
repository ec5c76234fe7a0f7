// How blocks of 256 weights lay out fields that are narrower than a byte: `split` gives one byte per weight, `join` is its
// inverse. Written as loops over neighbouring bytes, which vectorise.
#pragma once

#include <cstdint>

namespace frugal::formats {

// Two bits of weight i = 128 c + 32 j + l at bits 2 j of byte 32 c + l.
inline void split_pairs(const uint8_t* bytes, uint8_t* codes) {
  for (int c = 0; c < 2; ++c) {
    for (int j = 0; j < 4; ++j) {
      for (int l = 0; l < 32; ++l) codes[128 * c + 32 * j + l] = (bytes[32 * c + l] >> (2 * j)) & 3;
    }
  }
}

inline void join_pairs(const uint8_t* codes, uint8_t* bytes) {
  for (int c = 0; c < 2; ++c) {
    for (int l = 0; l < 32; ++l) {
      const uint8_t* code = codes + 128 * c + l;
      bytes[32 * c + l] = static_cast<uint8_t>((code[0] & 3) | (code[32] & 3) << 2 | (code[64] & 3) << 4 | (code[96] & 3) << 6);
    }
  }
}

// Nibbles of Weights weights in runs of 2 Half: byte l of a run holds weights l (low) and l + Half (high).
template <int Weights, int Half>
void split_runs(const uint8_t* bytes, uint8_t* codes) {
  for (int run = 0; run < Weights / (2 * Half); ++run) {
    for (int l = 0; l < Half; ++l) {
      codes[2 * Half * run + l] = bytes[Half * run + l] & 0x0f;
      codes[2 * Half * run + Half + l] = bytes[Half * run + l] >> 4;
    }
  }
}

template <int Weights, int Half>
void join_runs(const uint8_t* codes, uint8_t* bytes) {
  for (int run = 0; run < Weights / (2 * Half); ++run) {
    for (int l = 0; l < Half; ++l) {
      const uint8_t* code = codes + 2 * Half * run + l;
      bytes[Half * run + l] = static_cast<uint8_t>((code[0] & 0x0f) | (code[Half] & 0x0f) << 4);
    }
  }
}

// Bit j of byte l of `high` belongs to weight 32 j + l; it is bit `position` of the code.
inline void add_high_bits(const uint8_t* high, int position, uint8_t* codes) {
  for (int j = 0; j < 8; ++j) {
    for (int l = 0; l < 32; ++l) codes[32 * j + l] = static_cast<uint8_t>(codes[32 * j + l] | ((high[l] >> j) & 1) << position);
  }
}

inline void join_high_bits(const uint8_t* codes, int position, uint8_t* high) {
  for (int l = 0; l < 32; ++l) {
    int byte = 0;
    for (int j = 0; j < 8; ++j) byte |= ((codes[32 * j + l] >> position) & 1) << j;
    high[l] = static_cast<uint8_t>(byte);
  }
}

}  // namespace frugal::formats
