// The packed blocks of GGUF's quantized tensors, byte for byte. Little endian; no alignment is assumed (a tensor of a
// mapped file may lie anywhere). What each block says about itself:
//   kWeights  weights per block
//   kBits     bits of the integer codes that split_block gives; 0: not an integer format
//   kGroup    weights per (scale, minimum)
//   kOffset   > 0: symmetric, w = scale * (code - kOffset); 0: w = scale * code + minimum
//   kEncodes  there is an encoder
// Sources: the layouts are those of ggml (github.com/ggml-org/ggml) as the PyPI package `gguf` documents them.
#pragma once

#include <cstdint>

namespace frugal::formats {

#define FRUGAL_BLOCK(weights, bits, group, offset, encodes) \
  static constexpr int kWeights = weights;                  \
  static constexpr int kBits = bits;                        \
  static constexpr int kGroup = group;                      \
  static constexpr int kOffset = offset;                    \
  static constexpr bool kEncodes = encodes

using F16Bits = uint16_t;

// --- 32 weights: one scale, 4 to 8-bit codes. Byte i holds weight i (low nibble) and weight i + 16 (high nibble). ---

struct [[gnu::packed]] BlockQ4_0 {  // 4.5 bits per weight
  FRUGAL_BLOCK(32, 4, 32, 8, true);
  F16Bits scale;
  uint8_t codes[16];
};
static_assert(sizeof(BlockQ4_0) == 18);

struct [[gnu::packed]] BlockQ4_1 {  // 5 bits per weight
  FRUGAL_BLOCK(32, 4, 32, 0, true);
  F16Bits scale;
  F16Bits minimum;
  uint8_t codes[16];
};
static_assert(sizeof(BlockQ4_1) == 20);

struct [[gnu::packed]] BlockQ5_0 {  // 5.5 bits per weight
  FRUGAL_BLOCK(32, 5, 32, 16, true);
  F16Bits scale;
  uint32_t high;  // bit i: the fifth bit of weight i
  uint8_t codes[16];
};
static_assert(sizeof(BlockQ5_0) == 22);

struct [[gnu::packed]] BlockQ5_1 {  // 6 bits per weight
  FRUGAL_BLOCK(32, 5, 32, 0, true);
  F16Bits scale;
  F16Bits minimum;
  uint32_t high;
  uint8_t codes[16];
};
static_assert(sizeof(BlockQ5_1) == 24);

struct [[gnu::packed]] BlockQ8_0 {  // 8.5 bits per weight
  FRUGAL_BLOCK(32, 8, 32, 128, true);
  F16Bits scale;
  int8_t codes[32];
};
static_assert(sizeof(BlockQ8_0) == 34);

// Codes index 16 unequally spaced values (iq4_values); the integer form is value + 127.
struct [[gnu::packed]] BlockIQ4_NL {  // 4.5 bits per weight
  FRUGAL_BLOCK(32, 8, 32, 127, true);
  F16Bits scale;
  uint8_t codes[16];
};
static_assert(sizeof(BlockIQ4_NL) == 18);

// --- 256 weights: groups of 16 or 32 whose scales are integers under one F16 (two when there are minimums). ---

struct [[gnu::packed]] BlockQ2_K {  // 2.625 bits per weight
  FRUGAL_BLOCK(256, 2, 16, 0, true);
  uint8_t scales[16];  // low nibble: scale, high nibble: minimum (of group g)
  uint8_t codes[64];   // byte 32 c + l holds weights 128 c + l + {0, 32, 64, 96}, low bits first
  F16Bits scale;
  F16Bits minimum;  // stored positive, subtracted
};
static_assert(sizeof(BlockQ2_K) == 84);

struct [[gnu::packed]] BlockQ3_K {  // 3.4375 bits per weight
  FRUGAL_BLOCK(256, 3, 16, 4, true);
  uint8_t high[32];    // byte l, bit j: the third bit of weight 32 j + l
  uint8_t codes[64];   // low two bits, as Q2_K
  uint8_t scales[12];  // 16 six-bit scales, biased by 32: nibbles in bytes 0-7 (low: g < 8), the upper two bits in bytes 8-11
  F16Bits scale;
};
static_assert(sizeof(BlockQ3_K) == 110);

struct [[gnu::packed]] BlockQ4_K {  // 4.5 bits per weight
  FRUGAL_BLOCK(256, 4, 32, 0, true);
  F16Bits scale;
  F16Bits minimum;     // stored positive, subtracted
  uint8_t scales[12];  // 8 six-bit scales and 8 six-bit minimums, see k_scales.h
  uint8_t codes[128];  // byte 32 c + l holds weights 64 c + l and 64 c + 32 + l
};
static_assert(sizeof(BlockQ4_K) == 144);

struct [[gnu::packed]] BlockQ5_K {  // 5.5 bits per weight
  FRUGAL_BLOCK(256, 5, 32, 0, true);
  F16Bits scale;
  F16Bits minimum;
  uint8_t scales[12];
  uint8_t high[32];  // byte l, bit j: the fifth bit of weight 32 j + l
  uint8_t codes[128];
};
static_assert(sizeof(BlockQ5_K) == 176);

struct [[gnu::packed]] BlockQ6_K {  // 6.5625 bits per weight
  FRUGAL_BLOCK(256, 6, 16, 32, true);
  uint8_t low[128];  // byte 64 c + l holds weights 128 c + l and 128 c + 64 + l
  uint8_t high[64];  // byte 32 c + l holds the upper two bits of weights 128 c + l + {0, 32, 64, 96}
  int8_t scales[16];
  F16Bits scale;
};
static_assert(sizeof(BlockQ6_K) == 210);

// For activations: the group sums let a kernel add minimums without touching the codes.
struct [[gnu::packed]] BlockQ8_K {  // 9.125 bits per weight
  FRUGAL_BLOCK(256, 8, 256, 128, true);
  float scale;
  int8_t codes[256];
  int16_t sums[16];  // of the codes of each 16 weights
};
static_assert(sizeof(BlockQ8_K) == 292);

struct [[gnu::packed]] BlockIQ4_XS {  // 4.25 bits per weight
  FRUGAL_BLOCK(256, 8, 32, 127, true);
  F16Bits scale;
  uint16_t scales_high;  // two bits per group
  uint8_t scales_low[4];
  uint8_t codes[128];  // per group as IQ4_NL
};
static_assert(sizeof(BlockIQ4_XS) == 136);

// --- 256 weights: runs of 4 or 8 weights are entries of a fixed codebook (i_quants.cpp). No integer form, no encoder. ---

struct [[gnu::packed]] BlockIQ2_XXS {  // 2.0625 bits per weight
  FRUGAL_BLOCK(256, 0, 32, 0, false);
  F16Bits scale;
  uint16_t codes[32];  // per 32 weights: 4 entry numbers of a byte, then 4 x 7 bits of signs and 4 bits of scale
};
static_assert(sizeof(BlockIQ2_XXS) == 66);

struct [[gnu::packed]] BlockIQ2_XS {  // 2.3125 bits per weight
  FRUGAL_BLOCK(256, 0, 16, 0, false);
  F16Bits scale;
  uint16_t codes[32];  // 9 bits of entry, 7 bits of signs
  uint8_t scales[8];
};
static_assert(sizeof(BlockIQ2_XS) == 74);

struct [[gnu::packed]] BlockIQ2_S {  // 2.5625 bits per weight
  FRUGAL_BLOCK(256, 0, 16, 0, false);
  F16Bits scale;
  uint8_t codes[32];
  uint8_t signs[32];
  uint8_t high[8];
  uint8_t scales[8];
};
static_assert(sizeof(BlockIQ2_S) == 82);

struct [[gnu::packed]] BlockIQ3_XXS {  // 3.0625 bits per weight
  FRUGAL_BLOCK(256, 0, 32, 0, false);
  F16Bits scale;
  uint8_t codes[64];
  uint32_t signs_and_scales[8];  // 4 x 7 bits of signs, 4 bits of scale
};
static_assert(sizeof(BlockIQ3_XXS) == 98);

struct [[gnu::packed]] BlockIQ3_S {  // 3.4375 bits per weight
  FRUGAL_BLOCK(256, 0, 32, 0, false);
  F16Bits scale;
  uint8_t codes[64];
  uint8_t high[8];
  uint8_t signs[32];
  uint8_t scales[4];
};
static_assert(sizeof(BlockIQ3_S) == 110);

struct [[gnu::packed]] BlockIQ1_S {  // 1.5625 bits per weight
  FRUGAL_BLOCK(256, 0, 32, 0, false);
  F16Bits scale;
  uint8_t codes[32];
  uint16_t high[8];  // 4 x 3 bits of entry, 3 bits of scale, 1 sign of the shift
};
static_assert(sizeof(BlockIQ1_S) == 50);

struct [[gnu::packed]] BlockIQ1_M {  // 1.75 bits per weight
  FRUGAL_BLOCK(256, 0, 16, 0, false);
  uint8_t codes[32];
  uint8_t high[16];    // 2 x (3 bits of entry, 1 sign of the shift)
  uint16_t scales[4];  // 4 x 3 bits of scale; the four upper nibbles together are the F16 scale of the block
};
static_assert(sizeof(BlockIQ1_M) == 56);

// --- ternary ---

struct [[gnu::packed]] BlockTQ1_0 {  // 1.6875 bits per weight
  FRUGAL_BLOCK(256, 2, 256, 1, true);
  uint8_t codes[48];  // five base-3 digits a byte
  uint8_t tail[4];    // four base-3 digits a byte
  F16Bits scale;
};
static_assert(sizeof(BlockTQ1_0) == 54);

struct [[gnu::packed]] BlockTQ2_0 {  // 2.0625 bits per weight
  FRUGAL_BLOCK(256, 2, 256, 1, true);
  uint8_t codes[64];  // as Q2_K
  F16Bits scale;
};
static_assert(sizeof(BlockTQ2_0) == 66);

// --- microscaling: FP4 E2M1 codes; the integer form is twice the E2M1 value (-12..12) + 12. ---

struct [[gnu::packed]] BlockMXFP4 {  // 4.25 bits per weight
  FRUGAL_BLOCK(32, 5, 32, 12, true);
  uint8_t exponent;  // E8M0
  uint8_t codes[16];
};
static_assert(sizeof(BlockMXFP4) == 17);

struct [[gnu::packed]] BlockNVFP4 {  // 4.5 bits per weight (a second, per-tensor scale is a tensor of its own)
  FRUGAL_BLOCK(64, 5, 16, 12, true);
  uint8_t scales[4];  // E4M3, sign bit unused
  uint8_t codes[32];  // per 16 weights 8 bytes: weight i low, weight i + 8 high
};
static_assert(sizeof(BlockNVFP4) == 36);

#undef FRUGAL_BLOCK

}  // namespace frugal::formats
