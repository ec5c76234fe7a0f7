// Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 and IQ4_NL: 32 weights under one F16 scale (and minimum). Without importance the encoders
// round to nearest exactly as ggml's reference does (oracle: PyPI `gguf`); with it they search the scale, scale_search.h.
#include <algorithm>
#include <cmath>
#include <limits>

#include "formats/bit_fields.h"
#include "formats/codec-inl.h"
#include "formats/half.h"
#include "formats/iq4_values.h"
#include "formats/scale_search.h"

namespace frugal::formats {

namespace {

constexpr int kWeights = 32;

void add_high_bits(uint32_t high, uint8_t* codes) {
  for (int i = 0; i < kWeights; ++i) codes[i] = static_cast<uint8_t>(codes[i] | ((high >> i) & 1u) << 4);
}

uint32_t high_bits(const uint8_t* codes) {
  uint32_t high = 0;
  for (int i = 0; i < kWeights; ++i) high |= static_cast<uint32_t>(codes[i] >> 4) << i;
  return high;
}

// The first weight of the largest magnitude, with its sign.
float extreme(const float* weights) {
  float largest = 0.0f;
  float result = weights[0];
  for (int i = 0; i < kWeights; ++i) {
    if (std::abs(weights[i]) > largest) {
      largest = std::abs(weights[i]);
      result = weights[i];
    }
  }
  return result;
}

float inverse_or_zero(float value) { return value == 0.0f ? 0.0f : 1.0f / value; }

// Codes of (weight - origin) * inverse + shift, truncated into [0, max_code]; NaN becomes 0.
void truncate_codes(const float* weights, float origin, float inverse, float shift, int max_code, uint8_t* codes) {
  const float top = static_cast<float>(max_code);
  for (int i = 0; i < kWeights; ++i) {
    float value = (weights[i] - origin) * inverse + shift;
    value = value > 0.0f ? value : 0.0f;
    value = value < top ? value : top;
    codes[i] = static_cast<uint8_t>(static_cast<int>(value));
  }
}

// Symmetric codes in [0, 2 * half): the weight of the largest magnitude becomes code 0. Returns the scale.
template <int Half>
F16Bits encode_symmetric(const float* weights, const float* importance, uint8_t* codes) {
  if (importance == nullptr) {
    const float scale = extreme(weights) / static_cast<float>(-Half);
    truncate_codes(weights, 0.0f, inverse_or_zero(scale), static_cast<float>(Half) + 0.5f, 2 * Half - 1, codes);
    return float_to_f16(scale);
  }
  const CodeRange range{-Half, Half - 1};
  const F16Bits scale = float_to_f16(fit_symmetric<kWeights>(weights, importance, range));
  nearest_codes<kWeights>(weights, {f16_to_float(scale), 0.0f}, range, codes);
  return scale;
}

struct F16Pair {
  F16Bits scale;
  F16Bits minimum;
};

template <int MaxCode>
F16Pair encode_affine(const float* weights, const float* importance, uint8_t* codes) {
  if (importance == nullptr) {
    float low = weights[0];
    float high = weights[0];
    for (int i = 1; i < kWeights; ++i) {
      low = std::min(low, weights[i]);
      high = std::max(high, weights[i]);
    }
    const float scale = (high - low) / static_cast<float>(MaxCode);
    truncate_codes(weights, low, inverse_or_zero(scale), 0.5f, MaxCode, codes);
    return {float_to_f16(scale), float_to_f16(low)};
  }
  const Affine fit = fit_affine<kWeights>(weights, importance, MaxCode, std::numeric_limits<float>::infinity());
  const F16Pair stored{float_to_f16(fit.scale), float_to_f16(fit.minimum)};
  nearest_codes<kWeights>(weights, {f16_to_float(stored.scale), f16_to_float(stored.minimum)}, {0, MaxCode}, codes);
  return stored;
}

}  // namespace

static void split_block(const BlockQ4_0& block, uint8_t* codes, float* scales, float*) {
  scales[0] = f16_to_float(block.scale);
  split_runs<32, 16>(block.codes, codes);
}

static void split_block(const BlockQ4_1& block, uint8_t* codes, float* scales, float* minimums) {
  scales[0] = f16_to_float(block.scale);
  minimums[0] = f16_to_float(block.minimum);
  split_runs<32, 16>(block.codes, codes);
}

static void split_block(const BlockQ5_0& block, uint8_t* codes, float* scales, float*) {
  scales[0] = f16_to_float(block.scale);
  split_runs<32, 16>(block.codes, codes);
  add_high_bits(block.high, codes);
}

static void split_block(const BlockQ5_1& block, uint8_t* codes, float* scales, float* minimums) {
  scales[0] = f16_to_float(block.scale);
  minimums[0] = f16_to_float(block.minimum);
  split_runs<32, 16>(block.codes, codes);
  add_high_bits(block.high, codes);
}

static void split_block(const BlockQ8_0& block, uint8_t* codes, float* scales, float*) {
  scales[0] = f16_to_float(block.scale);
  for (int i = 0; i < kWeights; ++i) codes[i] = static_cast<uint8_t>(block.codes[i] + 128);
}

static void split_block(const BlockIQ4_NL& block, uint8_t* codes, float* scales, float*) {
  scales[0] = f16_to_float(block.scale);
  split_runs<32, 16>(block.codes, codes);
  for (int i = 0; i < kWeights; ++i) codes[i] = static_cast<uint8_t>(kIq4Values[codes[i]] + 127);
}

static void encode_block(const float* weights, const float* importance, BlockQ4_0& block) {
  uint8_t codes[kWeights];
  block.scale = encode_symmetric<8>(weights, importance, codes);
  join_runs<32, 16>(codes, block.codes);
}

static void encode_block(const float* weights, const float* importance, BlockQ4_1& block) {
  uint8_t codes[kWeights];
  const F16Pair stored = encode_affine<15>(weights, importance, codes);
  block.scale = stored.scale;
  block.minimum = stored.minimum;
  join_runs<32, 16>(codes, block.codes);
}

static void encode_block(const float* weights, const float* importance, BlockQ5_0& block) {
  uint8_t codes[kWeights];
  block.scale = encode_symmetric<16>(weights, importance, codes);
  block.high = high_bits(codes);
  join_runs<32, 16>(codes, block.codes);
}

static void encode_block(const float* weights, const float* importance, BlockQ5_1& block) {
  uint8_t codes[kWeights];
  const F16Pair stored = encode_affine<31>(weights, importance, codes);
  block.scale = stored.scale;
  block.minimum = stored.minimum;
  block.high = high_bits(codes);
  join_runs<32, 16>(codes, block.codes);
}

// Importance is ignored: every weight is within half a step of 1/127 of the largest, there is nothing to trade.
static void encode_block(const float* weights, const float*, BlockQ8_0& block) {
  float largest = 0.0f;
  for (int i = 0; i < kWeights; ++i) largest = std::max(largest, std::abs(weights[i]));
  const float scale = largest / 127.0f;
  const float inverse = inverse_or_zero(scale);
  block.scale = float_to_f16(scale);
  for (int i = 0; i < kWeights; ++i) block.codes[i] = static_cast<int8_t>(round_half_away(weights[i] * inverse, 127.0f));
}

static void encode_block(const float* weights, const float* importance, BlockIQ4_NL& block) {
  uint8_t codes[kWeights];
  float ones[kWeights];
  if (importance == nullptr) std::fill_n(ones, kWeights, 1.0f);
  block.scale = float_to_f16(fit_iq4<kWeights>(weights, importance == nullptr ? ones : importance));
  nearest_iq4_codes<kWeights>(weights, f16_to_float(block.scale), codes);
  join_runs<32, 16>(codes, block.codes);
}

FRUGAL_INSTANTIATE_DECODE(BlockQ4_0);
FRUGAL_INSTANTIATE_DECODE(BlockQ4_1);
FRUGAL_INSTANTIATE_DECODE(BlockQ5_0);
FRUGAL_INSTANTIATE_DECODE(BlockQ5_1);
FRUGAL_INSTANTIATE_DECODE(BlockQ8_0);
FRUGAL_INSTANTIATE_DECODE(BlockIQ4_NL);
FRUGAL_INSTANTIATE_SPLIT(BlockQ4_0);
FRUGAL_INSTANTIATE_SPLIT(BlockQ4_1);
FRUGAL_INSTANTIATE_SPLIT(BlockQ5_0);
FRUGAL_INSTANTIATE_SPLIT(BlockQ5_1);
FRUGAL_INSTANTIATE_SPLIT(BlockQ8_0);
FRUGAL_INSTANTIATE_SPLIT(BlockIQ4_NL);
FRUGAL_INSTANTIATE_ENCODE(BlockQ4_0);
FRUGAL_INSTANTIATE_ENCODE(BlockQ4_1);
FRUGAL_INSTANTIATE_ENCODE(BlockQ5_0);
FRUGAL_INSTANTIATE_ENCODE(BlockQ5_1);
FRUGAL_INSTANTIATE_ENCODE(BlockQ8_0);
FRUGAL_INSTANTIATE_ENCODE(BlockIQ4_NL);

}  // namespace frugal::formats
