// Activations to 8-bit codes: definition in quantize_activations.h.
#pragma once

namespace frugal::kernels::FRUGAL_ISA_NS {

inline constexpr uint32_t kInfinityBits = 0x7f800000;
inline constexpr float kSmallestMaximum = 0x1p-100f;

struct BlockScale {
  float scale;
  float inverse;  // 0: all codes are 0
};

FRUGAL_INLINE BlockScale scale_of(uint32_t max_bits) {
  if (max_bits >= kInfinityBits) return {__builtin_nanf(""), 0};
  const float maximum = __builtin_bit_cast(float, max_bits);
  if (maximum < kSmallestMaximum) return {0, 0};
  return {maximum / 127.0f, 127.0f / maximum};
}

// 32 floats of a row from `column` on; the ragged last block goes through `buffer`, padded with zeros.
FRUGAL_INLINE const float* block_at(const float* row, int64_t column, int64_t columns, float* buffer) {
  if (column + 32 <= columns) return row + column;
  for (int i = 0; i < 32; ++i) {
    buffer[i] = 0;
    if (column + i < columns) __builtin_memcpy(&buffer[i], row + column + i, 4);
  }
  return buffer;
}

inline void quantize(const QuantizeArguments& a, int64_t token_begin, int64_t token_end) {
  const int64_t blocks = a.padded_columns / 32;
  float buffer[32];
  for (int64_t token = token_begin; token < token_end; ++token) {
    const float* row = a.x + token * a.stride;
    int8_t* codes = a.codes + token * a.padded_columns;
    BlockScale scale{a.tensor_scale, a.tensor_scale > 0 ? 1.0f / a.tensor_scale : 0};
    if (a.mode == 1) {
      uint32_t best = 0;
      for (int64_t block = 0; block < blocks; ++block) best = max_bits_32(block_at(row, block * 32, a.columns, buffer), best);
      scale = scale_of(best);
    }
    for (int64_t block = 0; block < blocks; ++block) {
      const float* x = block_at(row, block * 32, a.columns, buffer);
      BlockScale own = scale;
      if (a.mode != 1) {
        const uint32_t best = max_bits_32(x, 0);
        if (a.mode == 0 || best >= kInfinityBits) own = scale_of(best);
      }
      int32_t sums[2] = {0, 0};
      if (own.inverse != 0) {
        quantize_32(x, own.inverse, codes + block * 32, sums);
      } else {
        __builtin_memset(codes + block * 32, 0, 32);
      }
      const int64_t at = token * blocks + block;
      a.scales[at] = own.scale;
      a.sums[at] = own.scale * static_cast<float>(sums[0] + sums[1]);
      a.half_sums[2 * at] = own.scale * static_cast<float>(sums[0]);
      a.half_sums[2 * at + 1] = own.scale * static_cast<float>(sums[1]);
    }
  }
}

}  // namespace frugal::kernels::FRUGAL_ISA_NS
