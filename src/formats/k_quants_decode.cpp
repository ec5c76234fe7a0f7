// Decoding of the K-quants (Q2_K to Q6_K, Q8_K) and IQ4_XS: 256 weights in groups of 16 or 32 whose integer scales share one
// F16 scale. Layouts: blocks.h.
#include "formats/bit_fields.h"
#include "formats/codec-inl.h"
#include "formats/half.h"
#include "formats/iq4_values.h"
#include "formats/k_scales.h"

namespace frugal::formats {

namespace {

void split_affine_scales(const uint8_t packed[12], F16Bits scale, F16Bits minimum, float* scales, float* minimums) {
  uint8_t integer_scales[8];
  uint8_t integer_minimums[8];
  unpack_scales_and_minimums(packed, integer_scales, integer_minimums);
  const float d = f16_to_float(scale);
  const float m = f16_to_float(minimum);
  for (int g = 0; g < 8; ++g) {
    scales[g] = d * static_cast<float>(integer_scales[g]);
    minimums[g] = -(m * static_cast<float>(integer_minimums[g]));
  }
}

}  // namespace

static void split_block(const BlockQ2_K& block, uint8_t* codes, float* scales, float* minimums) {
  split_pairs(block.codes, codes);
  const float d = f16_to_float(block.scale);
  const float m = f16_to_float(block.minimum);
  for (int g = 0; g < 16; ++g) {
    scales[g] = d * static_cast<float>(block.scales[g] & 0x0f);
    minimums[g] = -(m * static_cast<float>(block.scales[g] >> 4));
  }
}

static void split_block(const BlockQ3_K& block, uint8_t* codes, float* scales, float*) {
  split_pairs(block.codes, codes);
  add_high_bits(block.high, 2, codes);
  int8_t integers[16];
  unpack_signed_scales(block.scales, integers);
  const float d = f16_to_float(block.scale);
  for (int g = 0; g < 16; ++g) scales[g] = d * static_cast<float>(integers[g]);
}

static void split_block(const BlockQ4_K& block, uint8_t* codes, float* scales, float* minimums) {
  split_runs<256, 32>(block.codes, codes);
  split_affine_scales(block.scales, block.scale, block.minimum, scales, minimums);
}

static void split_block(const BlockQ5_K& block, uint8_t* codes, float* scales, float* minimums) {
  split_runs<256, 32>(block.codes, codes);
  add_high_bits(block.high, 4, codes);
  split_affine_scales(block.scales, block.scale, block.minimum, scales, minimums);
}

static void split_block(const BlockQ6_K& block, uint8_t* codes, float* scales, float*) {
  split_runs<256, 64>(block.low, codes);
  uint8_t high[256];
  split_pairs(block.high, high);
  for (int i = 0; i < 256; ++i) codes[i] = static_cast<uint8_t>(codes[i] | high[i] << 4);
  const float d = f16_to_float(block.scale);
  for (int g = 0; g < 16; ++g) scales[g] = d * static_cast<float>(block.scales[g]);
}

static void split_block(const BlockQ8_K& block, uint8_t* codes, float* scales, float*) {
  scales[0] = block.scale;
  for (int i = 0; i < 256; ++i) codes[i] = static_cast<uint8_t>(block.codes[i] + 128);
}

static void split_block(const BlockIQ4_XS& block, uint8_t* codes, float* scales, float*) {
  split_runs<256, 16>(block.codes, codes);
  for (int i = 0; i < 256; ++i) codes[i] = static_cast<uint8_t>(kIq4Values[codes[i]] + 127);
  const float d = f16_to_float(block.scale);
  for (int g = 0; g < 8; ++g) {
    const int low = (block.scales_low[g / 2] >> (4 * (g % 2))) & 0x0f;
    const int high = (block.scales_high >> (2 * g)) & 3;
    scales[g] = d * static_cast<float>((low | high << 4) - 32);
  }
}

FRUGAL_INSTANTIATE_DECODE(BlockQ2_K);
FRUGAL_INSTANTIATE_DECODE(BlockQ3_K);
FRUGAL_INSTANTIATE_DECODE(BlockQ4_K);
FRUGAL_INSTANTIATE_DECODE(BlockQ5_K);
FRUGAL_INSTANTIATE_DECODE(BlockQ6_K);
FRUGAL_INSTANTIATE_DECODE(BlockQ8_K);
FRUGAL_INSTANTIATE_DECODE(BlockIQ4_XS);
FRUGAL_INSTANTIATE_SPLIT(BlockQ2_K);
FRUGAL_INSTANTIATE_SPLIT(BlockQ3_K);
FRUGAL_INSTANTIATE_SPLIT(BlockQ4_K);
FRUGAL_INSTANTIATE_SPLIT(BlockQ5_K);
FRUGAL_INSTANTIATE_SPLIT(BlockQ6_K);
FRUGAL_INSTANTIATE_SPLIT(BlockQ8_K);
FRUGAL_INSTANTIATE_SPLIT(BlockIQ4_XS);

}  // namespace frugal::formats
