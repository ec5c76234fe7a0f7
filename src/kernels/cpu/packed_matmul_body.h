// The product of packed panels with quantized activations, for every instruction set (see packed_matrix.h for the layout).
// A tile is one panel (16 rows) times up to kTokenTile tokens over all columns: codes are unpacked once per tile, integer sums
// of a block stay in registers, and per block each sum takes a conversion, a multiply by the activation scale and two fused
// multiply-adds into its float accumulator. The order of these is the same for every tile width, so a token's result does not
// depend on its neighbours.
#pragma once

namespace frugal::kernels::FRUGAL_ISA_NS {

inline constexpr int kHalves = 16 / kLaneRows;

struct PanelScales {
  Vec super_scale[kHalves];
  Vec super_minimum[kHalves];
  Vec scale[kHalves];
  Vec minimum[kHalves];
};

// Reads the scales of a group at `p` and returns the address of the group's codes. `new_super`: an fp32 per row comes first.
template <int Bits>
FRUGAL_INLINE const std::byte* load_scales(const PackedArguments& a, bool new_super, const std::byte* p, bool with_minimum, PanelScales& s) {
  if (a.scale_form == 0) {  // fp16
    for (int h = 0; h < kHalves; ++h) s.scale[h] = load_f16(reinterpret_cast<const uint16_t*>(p) + h * kLaneRows);
    p += 32;
    if (a.has_minimums) {
      for (int h = 0; h < kHalves; ++h) s.minimum[h] = load_f16(reinterpret_cast<const uint16_t*>(p) + h * kLaneRows);
      p += 32;
    }
  } else if (a.scale_form == 1) {  // fp32
    for (int h = 0; h < kHalves; ++h) s.scale[h] = load(reinterpret_cast<const float*>(p) + h * kLaneRows);
    p += 64;
    if (a.has_minimums) {
      for (int h = 0; h < kHalves; ++h) s.minimum[h] = load(reinterpret_cast<const float*>(p) + h * kLaneRows);
      p += 64;
    }
  } else {  // int8 times fp32
    if (new_super) {
      for (int h = 0; h < kHalves; ++h) s.super_scale[h] = load(reinterpret_cast<const float*>(p) + h * kLaneRows);
      p += 64;
      if (a.has_minimums) {
        for (int h = 0; h < kHalves; ++h) s.super_minimum[h] = load(reinterpret_cast<const float*>(p) + h * kLaneRows);
        p += 64;
      }
    }
    for (int h = 0; h < kHalves; ++h) s.scale[h] = mul(s.super_scale[h], load_i8(reinterpret_cast<const int8_t*>(p) + h * kLaneRows));
    p += 16;
    if (a.has_minimums) {
      for (int h = 0; h < kHalves; ++h) {
        s.minimum[h] = mul(s.super_minimum[h], load_i8(reinterpret_cast<const int8_t*>(p) + h * kLaneRows));
      }
      p += 16;
    }
  }
  if (with_minimum) {
    constexpr float middle = static_cast<float>(1 << (Bits - 1));
    for (int h = 0; h < kHalves; ++h) {
      if (!a.has_minimums) {
        s.minimum[h] = mul(s.scale[h], set1(-middle));
      } else if (kSignedBytes && Bits == 8) {
        s.minimum[h] = fma(s.scale[h], set1(middle), s.minimum[h]);
      }
    }
  }
  return p;
}

template <int Bits, int Block, int M>
void panel_tile(const PackedArguments& a, const std::byte* panel, int64_t row, int64_t token, bool prefetch) {
  const int8_t* q[M];
  const float* activation_scale[M];
  const float* activation_sum[M];
  for (int m = 0; m < M; ++m) {
    q[m] = a.codes + (token + m) * a.padded_columns;
    activation_scale[m] = a.scales + (token + m) * (a.padded_columns / 32);
    activation_sum[m] = a.sums + (token + m) * (a.padded_columns / Block);
  }
  // Signed bytes without minimums are symmetric about 0: there is no minimum term.
  const bool with_minimum = a.has_minimums || !(kSignedBytes && Bits == 8);
  Vec sum[kHalves][M];
  for (int h = 0; h < kHalves; ++h) {
    for (int m = 0; m < M; ++m) sum[h][m] = zero();
  }
  PanelScales s;
  for (int h = 0; h < kHalves; ++h) s.super_scale[h] = s.super_minimum[h] = s.minimum[h] = zero();
  constexpr int kBlockBytes = Bits * 2 * Block;
  const std::byte* p = panel;
  int64_t block = 0, until_super = 0;
  for (int64_t group = 0; group < a.groups; ++group) {
    p = load_scales<Bits>(a, until_super == 0, p, with_minimum, s);
    until_super = until_super == 0 ? a.groups_per_super - 1 : until_super - 1;
    int64_t end = block + a.blocks_per_group;
    end = end < a.blocks ? end : a.blocks;
    for (; block < end; ++block, p += kBlockBytes) {
      if (prefetch) {
        // 2 KB ahead of one stream per thread: the hardware prefetcher stops at 4 KB pages. Measured on Zen 1, one thread, 4 bits
        // from memory: without 5.4-6.8 GB/s, 1 KB ahead 7.0-8.8, 2 KB 8.2-9.5, 3 and 4 KB no more.
#pragma GCC unroll 16
        for (int line = 0; line < kBlockBytes; line += 64) __builtin_prefetch(p + 2048 + line);
      }
      Vec dots[kHalves][M];
      block_dots<Bits, Block, M>(reinterpret_cast<const uint8_t*>(p), q, block * Block, dots);
      for (int m = 0; m < M; ++m) {
        const Vec scale = set1(activation_scale[m][block * Block / 32]);
        for (int h = 0; h < kHalves; ++h) sum[h][m] = fma(mul(scale, s.scale[h]), dots[h][m], sum[h][m]);
        if (with_minimum) {
          const Vec activations = set1(activation_sum[m][block]);
          for (int h = 0; h < kHalves; ++h) sum[h][m] = fma(s.minimum[h], activations, sum[h][m]);
        }
      }
    }
  }
  for (int h = 0; h < kHalves; ++h) {
    const int64_t left = a.rows - row - h * kLaneRows;
    for (int m = 0; m < M; ++m) {
      float* out = a.out + (token + m) * a.out_stride + row + h * kLaneRows;
      if (left >= kLaneRows) {
        store(out, sum[h][m]);
      } else if (left > 0) {
        store_part(out, sum[h][m], static_cast<int>(left));
      }
    }
  }
}

template <int Bits, int Block>
void panel_range(const PackedArguments& a) {
  for (int64_t panel = a.panel_begin; panel < a.panel_end; ++panel) {
    const std::byte* data = a.panels + panel * a.panel_bytes;
    int64_t token = a.token_begin;
    if constexpr (kTokenTile >= 8) {
      for (; token + 8 <= a.token_end; token += 8) panel_tile<Bits, Block, 8>(a, data, panel * 16, token, a.prefetch);
    }
    for (; token + 4 <= a.token_end; token += 4) panel_tile<Bits, Block, 4>(a, data, panel * 16, token, a.prefetch);
    if (token + 2 <= a.token_end) {
      panel_tile<Bits, Block, 2>(a, data, panel * 16, token, a.prefetch);
      token += 2;
    }
    if (token < a.token_end) panel_tile<Bits, Block, 1>(a, data, panel * 16, token, a.prefetch);
  }
}

template <int Bits>
void matmul_packed_bits(const PackedArguments& a) {
  if (a.block == 32) {
    panel_range<Bits, 32>(a);
  } else {
    panel_range<Bits, 16>(a);
  }
}

inline void matmul_packed(const PackedArguments& a) {
  switch (a.bits) {
    case 2: return matmul_packed_bits<2>(a);
    case 3: return matmul_packed_bits<3>(a);
    case 4: return matmul_packed_bits<4>(a);
    case 5: return matmul_packed_bits<5>(a);
    case 6: return matmul_packed_bits<6>(a);
    default: return matmul_packed_bits<8>(a);
  }
}

}  // namespace frugal::kernels::FRUGAL_ISA_NS
