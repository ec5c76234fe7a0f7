// TQ1_0 and TQ2_0: 256 weights of {-1, 0, 1} times one F16 scale, for models that were trained ternary. The scale is the
// largest magnitude, so ternary weights survive exactly; others are better served by a K-quant. Importance is ignored.
#include <algorithm>
#include <cmath>

#include "formats/bit_fields.h"
#include "formats/codec-inl.h"
#include "formats/half.h"
#include "formats/scale_search.h"

namespace frugal::formats {

namespace {

constexpr int kWeights = 256;

// Codes 0, 1, 2 for -1, 0, 1.
F16Bits ternary_codes(const float* weights, uint8_t* codes) {
  float scale = 0.0f;
  for (int i = 0; i < kWeights; ++i) scale = std::max(scale, std::abs(weights[i]));
  const float inverse = scale == 0.0f ? 0.0f : 1.0f / scale;
  for (int i = 0; i < kWeights; ++i) codes[i] = static_cast<uint8_t>(round_half_away(weights[i] * inverse, 1.0f) + 1);
  return float_to_f16(scale);
}

// A byte holds base-3 digits as a fraction: ceil(256 (d0/3 + d1/9 + ...)). Multiplied by 3 its overflow past 8 bits is the first
// digit, and the rest is the fraction of the others. Digit n of byte b is the code of weight n * Bytes + b.
template <int Bytes, int Digits>
void split_digits(const uint8_t* bytes, uint8_t* codes) {
  unsigned power = 1;
  for (int n = 0; n < Digits; ++n, power *= 3) {
    for (int b = 0; b < Bytes; ++b) {
      const unsigned fraction = (bytes[b] * power) & 0xff;
      codes[n * Bytes + b] = static_cast<uint8_t>((fraction * 3) >> 8);
    }
  }
}

template <int Bytes, int Digits>
void join_digits(const uint8_t* codes, uint8_t* bytes) {
  for (int b = 0; b < Bytes; ++b) {
    unsigned number = 0;
    for (int n = 0; n < 5; ++n) number = 3 * number + (n < Digits ? codes[n * Bytes + b] : 0u);
    bytes[b] = static_cast<uint8_t>((number * 256 + 242) / 243);
  }
}

}  // namespace

static void split_block(const BlockTQ1_0& block, uint8_t* codes, float* scales, float*) {
  scales[0] = f16_to_float(block.scale);
  split_digits<32, 5>(block.codes, codes);
  split_digits<16, 5>(block.codes + 32, codes + 160);
  split_digits<4, 4>(block.tail, codes + 240);
}

static void split_block(const BlockTQ2_0& block, uint8_t* codes, float* scales, float*) {
  scales[0] = f16_to_float(block.scale);
  split_pairs(block.codes, codes);
}

static void encode_block(const float* weights, const float*, BlockTQ1_0& block) {
  uint8_t codes[kWeights];
  block.scale = ternary_codes(weights, codes);
  join_digits<32, 5>(codes, block.codes);
  join_digits<16, 5>(codes + 160, block.codes + 32);
  join_digits<4, 4>(codes + 240, block.tail);
}

static void encode_block(const float* weights, const float*, BlockTQ2_0& block) {
  uint8_t codes[kWeights];
  block.scale = ternary_codes(weights, codes);
  join_pairs(codes, block.codes);
}

FRUGAL_INSTANTIATE_DECODE(BlockTQ1_0);
FRUGAL_INSTANTIATE_DECODE(BlockTQ2_0);
FRUGAL_INSTANTIATE_SPLIT(BlockTQ1_0);
FRUGAL_INSTANTIATE_SPLIT(BlockTQ2_0);
FRUGAL_INSTANTIATE_ENCODE(BlockTQ1_0);
FRUGAL_INSTANTIATE_ENCODE(BlockTQ2_0);

}  // namespace frugal::formats
