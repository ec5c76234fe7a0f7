// Bodies of codec.h. A file that instantiates them has defined, for its blocks,
//   static void split_block(const Block&, uint8_t* codes, float* scales, float* minimums)   integer formats; minimums are
//                                                        written by formats without kOffset only
//   static void decode_block(const Block&, float* weights)                                  the others
//   static void encode_block(const float* weights, const float* importance, Block&)
// Decoding goes through the codes: they stay in the first-level cache, and the loop that scales them vectorises.
#pragma once

#include "formats/codec.h"

namespace frugal::formats {

template <typename Block>
void decode(const std::byte* bytes, float* weights, int64_t count) {
  const Block* blocks = reinterpret_cast<const Block*>(bytes);
  for (int64_t b = 0; b < count / Block::kWeights; ++b, weights += Block::kWeights) {
    if constexpr (Block::kBits == 0) {
      decode_block(blocks[b], weights);
    } else {
      constexpr int kGroups = Block::kWeights / Block::kGroup;
      uint8_t codes[Block::kWeights];
      float scales[kGroups];
      float minimums[kGroups] = {};
      split_block(blocks[b], codes, scales, minimums);
      for (int g = 0; g < kGroups; ++g) {
        const float scale = scales[g];
        const float minimum = minimums[g];
        for (int i = g * Block::kGroup; i < (g + 1) * Block::kGroup; ++i) {
          // Two forms, because the oracle rounds once in the symmetric one.
          if constexpr (Block::kOffset > 0) {
            weights[i] = scale * static_cast<float>(codes[i] - Block::kOffset);
          } else {
            weights[i] = scale * static_cast<float>(codes[i]) + minimum;
          }
        }
      }
    }
  }
}

template <typename Block>
void split(const std::byte* bytes, uint8_t* codes, float* scales, float* minimums, int64_t count) {
  constexpr int kGroups = Block::kWeights / Block::kGroup;
  const Block* blocks = reinterpret_cast<const Block*>(bytes);
  for (int64_t b = 0; b < count / Block::kWeights; ++b) {
    split_block(blocks[b], codes + b * Block::kWeights, scales + b * kGroups, minimums + b * kGroups);
    if constexpr (Block::kOffset > 0) {
      for (int g = 0; g < kGroups; ++g) minimums[b * kGroups + g] = static_cast<float>(-Block::kOffset) * scales[b * kGroups + g];
    }
  }
}

template <typename Block>
void encode(const float* weights, const float* importance, std::byte* bytes, int64_t count) {
  Block* blocks = reinterpret_cast<Block*>(bytes);
  for (int64_t b = 0; b < count / Block::kWeights; ++b) {
    const int64_t first = b * Block::kWeights;
    encode_block(weights + first, importance == nullptr ? nullptr : importance + first, blocks[b]);
  }
}

}  // namespace frugal::formats

#define FRUGAL_INSTANTIATE_DECODE(Block) template void decode<Block>(const std::byte*, float*, int64_t)
#define FRUGAL_INSTANTIATE_SPLIT(Block) template void split<Block>(const std::byte*, uint8_t*, float*, float*, int64_t)
#define FRUGAL_INSTANTIATE_ENCODE(Block) template void encode<Block>(const float*, const float*, std::byte*, int64_t)
