// Decoding of IQ1_S to IQ3_S: runs of 8 (IQ3: 4) weights are an entry of a codebook times signs times a group scale; IQ1 has
// no signs but a common shift of an eighth. Encoding needs ggml's neighbour search over the codebooks and is not offered.
#include <bit>
#include <cstring>

#include "formats/codec-inl.h"
#include "formats/half.h"
#include "formats/i_quants_grids.h"

namespace frugal::formats {

namespace {

constexpr float kShift = 0.125f;

// Seven stored signs; the eighth makes their number even.
unsigned eight_signs(unsigned seven) { return seven | (static_cast<unsigned>(std::popcount(seven)) & 1u) << 7; }

// Bit i of `signs` negates weight i.
void scale_entry(const int8_t* entry, int count, float scale, unsigned signs, float* weights) {
  for (int i = 0; i < count; ++i) {
    const float value = scale * static_cast<float>(entry[i]);
    weights[i] = (signs >> i) & 1u ? -value : value;
  }
}

void shift_entry(const int8_t* entry, float scale, float shift, float* weights) {
  for (int i = 0; i < 8; ++i) weights[i] = scale * (static_cast<float>(entry[i]) + shift);
}

int nibble(const uint8_t* bytes, int index) { return (bytes[index / 2] >> (4 * (index % 2))) & 0x0f; }

float iq2_scale(float d, unsigned scale) { return d * (0.5f + static_cast<float>(scale)) * 0.25f; }

}  // namespace

static void decode_block(const BlockIQ2_XXS& block, float* weights) {
  const Codebook& book = codebook_iq2_xxs();
  const float d = f16_to_float(block.scale);
  for (int g = 0; g < 8; ++g) {
    uint8_t numbers[4];
    uint32_t rest;
    std::memcpy(numbers, &block.codes[4 * g], sizeof numbers);
    std::memcpy(&rest, &block.codes[4 * g + 2], sizeof rest);
    const float scale = iq2_scale(d, rest >> 28);
    for (int j = 0; j < 4; ++j) {
      scale_entry(book.entry(numbers[j]), 8, scale, eight_signs((rest >> (7 * j)) & 0x7f), weights + 32 * g + 8 * j);
    }
  }
}

static void decode_block(const BlockIQ2_XS& block, float* weights) {
  const Codebook& book = codebook_iq2_xs();
  const float d = f16_to_float(block.scale);
  for (int j = 0; j < 32; ++j) {
    const unsigned code = block.codes[j];
    const float scale = iq2_scale(d, static_cast<unsigned>(nibble(block.scales, j / 2)));
    scale_entry(book.entry(static_cast<int>(code & 511u)), 8, scale, eight_signs(code >> 9), weights + 8 * j);
  }
}

static void decode_block(const BlockIQ2_S& block, float* weights) {
  const Codebook& book = codebook_iq2_s();
  const float d = f16_to_float(block.scale);
  for (int j = 0; j < 32; ++j) {
    const int number = block.codes[j] | ((block.high[j / 4] >> (2 * (j % 4))) & 3) << 8;
    const float scale = iq2_scale(d, static_cast<unsigned>(nibble(block.scales, j / 2)));
    scale_entry(book.entry(number), 8, scale, block.signs[j], weights + 8 * j);
  }
}

static void decode_block(const BlockIQ3_XXS& block, float* weights) {
  const Codebook& book = codebook_iq3_xxs();
  const float d = f16_to_float(block.scale);
  for (int g = 0; g < 8; ++g) {
    const uint32_t rest = block.signs_and_scales[g];
    const float scale = d * (0.5f + static_cast<float>(rest >> 28)) * 0.5f;
    for (int j = 0; j < 4; ++j) {
      const unsigned signs = eight_signs((rest >> (7 * j)) & 0x7f);
      const uint8_t* numbers = block.codes + 8 * g + 2 * j;
      float* run = weights + 32 * g + 8 * j;
      scale_entry(book.entry(numbers[0]), 4, scale, signs, run);
      scale_entry(book.entry(numbers[1]), 4, scale, signs >> 4, run + 4);
    }
  }
}

static void decode_block(const BlockIQ3_S& block, float* weights) {
  const Codebook& book = codebook_iq3_s();
  const float d = f16_to_float(block.scale);
  for (int k = 0; k < 64; ++k) {
    const int number = block.codes[k] | ((block.high[k / 8] >> (k % 8)) & 1) << 8;
    const float scale = d * static_cast<float>(1 + 2 * nibble(block.scales, k / 8));
    scale_entry(book.entry(number), 4, scale, static_cast<unsigned>(nibble(block.signs, k)), weights + 4 * k);
  }
}

static void decode_block(const BlockIQ1_S& block, float* weights) {
  const Codebook& book = codebook_iq1();
  const float d = f16_to_float(block.scale);
  for (int g = 0; g < 8; ++g) {
    const int high = block.high[g];
    const float scale = d * static_cast<float>(2 * ((high >> 12) & 7) + 1);
    const float shift = (high & 0x8000) != 0 ? -kShift : kShift;
    for (int j = 0; j < 4; ++j) {
      const int number = block.codes[4 * g + j] | ((high >> (3 * j)) & 7) << 8;
      shift_entry(book.entry(number), scale, shift, weights + 32 * g + 8 * j);
    }
  }
}

static void decode_block(const BlockIQ1_M& block, float* weights) {
  const Codebook& book = codebook_iq1();
  unsigned bits = 0;
  for (int i = 0; i < 4; ++i) bits |= static_cast<unsigned>(block.scales[i] >> 12) << (4 * i);
  const float d = f16_to_float(static_cast<uint16_t>(bits));
  for (int j = 0; j < 32; ++j) {
    const int group = j / 2;
    const float scale = d * static_cast<float>(2 * ((block.scales[group / 4] >> (3 * (group % 4))) & 7) + 1);
    const int high = nibble(block.high, j);
    const float shift = (high & 8) != 0 ? -kShift : kShift;
    shift_entry(book.entry(block.codes[j] | (high & 7) << 8), scale, shift, weights + 8 * j);
  }
}

FRUGAL_INSTANTIATE_DECODE(BlockIQ2_XXS);
FRUGAL_INSTANTIATE_DECODE(BlockIQ2_XS);
FRUGAL_INSTANTIATE_DECODE(BlockIQ2_S);
FRUGAL_INSTANTIATE_DECODE(BlockIQ3_XXS);
FRUGAL_INSTANTIATE_DECODE(BlockIQ3_S);
FRUGAL_INSTANTIATE_DECODE(BlockIQ1_S);
FRUGAL_INSTANTIATE_DECODE(BlockIQ1_M);

}  // namespace frugal::formats
