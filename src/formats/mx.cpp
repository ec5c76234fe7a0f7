// MXFP4 (OCP Microscaling v1.0: 32 FP4 E2M1 weights under a power of two) and NVFP4 (16 under an E4M3 scale). Both encoders
// round each weight to the nearest value and ignore importance: a block has no freedom left but its scale.
#include <algorithm>
#include <cmath>

#include "formats/bit_fields.h"
#include "formats/codec-inl.h"
#include "formats/half.h"

namespace frugal::formats {

namespace {

// Twice the E2M1 values, so that they are integers; scales are halved to match.
constexpr int8_t kDoubledE2m1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
constexpr int kOffset = 12;

void to_integers(uint8_t* codes, int count) {
  for (int i = 0; i < count; ++i) codes[i] = static_cast<uint8_t>(kDoubledE2m1[codes[i]] + kOffset);
}

float half_of_e8m0(uint8_t exponent) {  // 255 gives a number here, not NaN: what ggml does
  return std::bit_cast<float>(exponent < 2 ? 0x00200000u << exponent : static_cast<uint32_t>(exponent - 1) << 23);
}

// NVFP4's scale: E4M3 without sign, where 0x7f means 0.
float half_of_unsigned_e4m3(uint8_t scale) {
  if (scale == 0x7f) return 0.0f;
  const uint32_t magnitude = scale & 0x7fu;
  const float value = magnitude < 8 ? static_cast<float>(magnitude) * 0x1p-9f : std::bit_cast<float>((magnitude << 20) + 0x3c000000u);
  return 0.5f * value;
}

// The nearest of the 16 values, the first one of equals; returns the squared error.
template <int N>
float nearest_e2m1(const float* weights, float half_scale, uint8_t* codes) {
  float best[N];
  int32_t best_code[N] = {};  // as wide as the floats, so that the selection below vectorises
  for (int i = 0; i < N; ++i) best[i] = std::abs(weights[i]);
  for (int k = 1; k < 16; ++k) {
    const float value = half_scale * static_cast<float>(kDoubledE2m1[k]);
    for (int i = 0; i < N; ++i) {
      const float distance = std::abs(value - weights[i]);
      const bool nearer = distance < best[i];
      best[i] = nearer ? distance : best[i];
      best_code[i] = nearer ? k : best_code[i];
    }
  }
  float error = 0.0f;
  for (int i = 0; i < N; ++i) {
    codes[i] = static_cast<uint8_t>(best_code[i]);
    error += best[i] * best[i];
  }
  return error;
}

float largest_magnitude(const float* weights, int count) {
  float largest = 0.0f;
  for (int i = 0; i < count; ++i) largest = std::max(largest, std::abs(weights[i]));
  return largest;
}

}  // namespace

static void split_block(const BlockMXFP4& block, uint8_t* codes, float* scales, float*) {
  scales[0] = half_of_e8m0(block.exponent);
  split_runs<32, 16>(block.codes, codes);
  to_integers(codes, 32);
}

static void split_block(const BlockNVFP4& block, uint8_t* codes, float* scales, float*) {
  for (int g = 0; g < 4; ++g) scales[g] = half_of_unsigned_e4m3(block.scales[g]);
  split_runs<64, 8>(block.codes, codes);
  to_integers(codes, 64);
}

// The exponent puts the largest weight into [4, 8): beyond 6 it is clipped.
static void encode_block(const float* weights, const float*, BlockMXFP4& block) {
  const float largest = largest_magnitude(weights, 32);
  const float exponent = largest > 0.0f ? std::floor(std::log2(largest)) - 2.0f + 127.0f : 0.0f;
  block.exponent = static_cast<uint8_t>(static_cast<int>(std::min(std::max(0.0f, exponent), 254.0f)));
  uint8_t codes[32];
  nearest_e2m1<32>(weights, half_of_e8m0(block.exponent), codes);
  join_runs<32, 16>(codes, block.codes);
}

// The largest weight becomes 6, or 4 where that leaves the smaller error (the step from 4 to 6 is the coarsest).
static void encode_block(const float* weights, const float*, BlockNVFP4& block) {
  uint8_t codes[64];
  for (int g = 0; g < 4; ++g) {
    const float* group = weights + 16 * g;
    const float largest = largest_magnitude(group, 16);
    const uint8_t scale_of_6 = float_to_f8e4m3(largest / 6.0f);
    const uint8_t scale_of_4 = float_to_f8e4m3(largest / 4.0f);
    uint8_t codes_of_4[16];
    const float error_of_6 = nearest_e2m1<16>(group, half_of_unsigned_e4m3(scale_of_6), codes + 16 * g);
    const float error_of_4 = nearest_e2m1<16>(group, half_of_unsigned_e4m3(scale_of_4), codes_of_4);
    block.scales[g] = scale_of_6;
    if (error_of_4 < error_of_6) {
      block.scales[g] = scale_of_4;
      std::copy_n(codes_of_4, 16, codes + 16 * g);
    }
  }
  join_runs<64, 8>(codes, block.codes);
}

FRUGAL_INSTANTIATE_DECODE(BlockMXFP4);
FRUGAL_INSTANTIATE_DECODE(BlockNVFP4);
FRUGAL_INSTANTIATE_SPLIT(BlockMXFP4);
FRUGAL_INSTANTIATE_SPLIT(BlockNVFP4);
FRUGAL_INSTANTIATE_ENCODE(BlockMXFP4);
FRUGAL_INSTANTIATE_ENCODE(BlockNVFP4);

}  // namespace frugal::formats
