// The product of packed panels with quantized activations, for every instruction set (see packed_matrix.h for the layout).
// A tile is one panel (16 rows) times up to kTokenTile tokens: integer sums of a block stay in registers, and per block each
// sum takes a conversion, a multiply by the activation scale and two fused multiply-adds into its float accumulator. The order
// of these is the same for every tile, so a token's result does not depend on its neighbours.
//
// From the set's integer_*.h:
//   block_dots<Bits, Layout, Block, M>   dots[h][m] = sum over a block's columns of code * activation, for the rows of half h and
//                                        token m; codes of `Bits` bits in the layout of `Layout` bits: the same, or 8
//   unpack_unit<Bits>                    a unit of 16 columns from its own layout to that of 8 bits
#pragma once

namespace frugal::kernels::FRUGAL_ISA_NS {

inline constexpr int kHalves = 16 / kLaneRows;

struct PanelScales {
  Vec super_scale[kHalves];
  Vec super_minimum[kHalves];
  Vec scale[kHalves];
  Vec minimum[kHalves];
};

// Signed bytes without minimums are symmetric about 0: there is no minimum term.
template <int Bits>
FRUGAL_INLINE bool has_minimum_term(const PackedArguments& a) {
  return a.has_minimums || !(kSignedBytes && Bits == 8);
}

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

// Calls f(block, codes, scales) for every block of a panel, in order.
template <int Bits, int Block, typename F>
FRUGAL_INLINE void for_each_block(const PackedArguments& a, const std::byte* panel, const F& f) {
  PanelScales s;
  for (int h = 0; h < kHalves; ++h) s.super_scale[h] = s.super_minimum[h] = s.minimum[h] = zero();
  constexpr int kBlockBytes = Bits * 2 * Block;
  const std::byte* p = panel;
  int64_t block = 0, until_super = 0;
  for (int64_t group = 0; group < a.groups; ++group) {
    p = load_scales<Bits>(a, until_super == 0, p, has_minimum_term<Bits>(a), s);
    until_super = until_super == 0 ? a.groups_per_super - 1 : until_super - 1;
    int64_t end = block + a.blocks_per_group;
    end = end < a.blocks ? end : a.blocks;
    for (; block < end; ++block, p += kBlockBytes) {
      if (a.prefetch) {
        // 2 KB ahead of one stream per thread: the hardware prefetcher stops at 4 KB pages. Measured on Zen 1, one thread, 4 bits
        // from memory: without 5.4-6.8 GB/s, 1 KB ahead 7.0-8.8, 2 KB 8.2-9.5, 3 and 4 KB no more.
#pragma GCC unroll 16
        for (int line = 0; line < kBlockBytes; line += 64) __builtin_prefetch(p + 2048 + line);
      }
      f(block, reinterpret_cast<const uint8_t*>(p), s);
    }
  }
}

// M tokens of the activations, and their sums with the 16 rows of a panel.
template <int Block, int M>
struct TokenTile {
  const int8_t* q[M];
  const float* scale[M];
  const float* sum_of_codes[M];
  float* out[M];
  int64_t rows_left;
  Vec sum[kHalves][M];

  FRUGAL_INLINE TokenTile(const PackedArguments& a, int64_t row, int64_t token) : rows_left(a.rows - row) {
    for (int m = 0; m < M; ++m) {
      q[m] = a.codes + (token + m) * a.padded_columns;
      scale[m] = a.scales + (token + m) * (a.padded_columns / 32);
      sum_of_codes[m] = a.sums + (token + m) * (a.padded_columns / Block);
      out[m] = a.out + (token + m) * a.out_stride + row;
      for (int h = 0; h < kHalves; ++h) sum[h][m] = zero();
    }
  }
  FRUGAL_INLINE void add(int64_t block, const Vec (&dots)[kHalves][M], const Vec (&weight_scale)[kHalves], const Vec (&minimum)[kHalves], bool with_minimum) {
    for (int m = 0; m < M; ++m) {
      const Vec activation_scale = set1(scale[m][block * Block / 32]);
      for (int h = 0; h < kHalves; ++h) sum[h][m] = fma(mul(activation_scale, weight_scale[h]), dots[h][m], sum[h][m]);
      if (with_minimum) {
        const Vec activations = set1(sum_of_codes[m][block]);
        for (int h = 0; h < kHalves; ++h) sum[h][m] = fma(minimum[h], activations, sum[h][m]);
      }
    }
  }
  FRUGAL_INLINE void load_sums() {
    for_each_half([&](int m, int h, int64_t left) {
      const float* from = out[m] + h * kLaneRows;
      sum[h][m] = left >= kLaneRows ? load(from) : load_part(from, static_cast<int>(left));
    });
  }
  FRUGAL_INLINE void store_sums() {
    for_each_half([&](int m, int h, int64_t left) {
      float* to = out[m] + h * kLaneRows;
      left >= kLaneRows ? store(to, sum[h][m]) : store_part(to, sum[h][m], static_cast<int>(left));
    });
  }

 private:
  template <typename F>
  FRUGAL_INLINE void for_each_half(const F& f) {
    for (int h = 0; h < kHalves; ++h) {
      const int64_t left = rows_left - h * kLaneRows;
      for (int m = 0; m < M && left > 0; ++m) f(m, h, left);
    }
  }
};

// Few tokens: a panel is unpacked in registers, once for the tile.
template <int Bits, int Block, int M>
void panel_tile(const PackedArguments& a, const std::byte* panel, int64_t row, int64_t token) {
  TokenTile<Block, M> tile(a, row, token);
  const bool with_minimum = has_minimum_term<Bits>(a);
  for_each_block<Bits, Block>(
      a, panel, [&](int64_t block, const uint8_t* codes, const PanelScales& s) __attribute__((always_inline)) {
        Vec dots[kHalves][M];
        block_dots<Bits, Bits, Block, M>(codes, tile.q, block * Block, dots);
        tile.add(block, dots, s.scale, s.minimum, with_minimum);
      });
  tile.store_sums();
}

// Many tokens: a part of a panel is unpacked once for all of them, to bytes in the order of an 8-bit panel and floats. Of the
// 192 vector operations of a 4-bit block with minimums times 4 tokens (AVX2), 24 unpack codes and 8 convert scales. Measured on
// Zen 3, GOP/s of one thread, 576 columns, a tile that unpacks / this: 4 bits 177 / 160 for 8 tokens, 180 / 183 for 16,
// 189 / 201 for 32, 187 / 211 for 256; 256 tokens of 3 bits 157 / 212, of 6 bits 142 / 177, of 8 bits (scales only) 115 / 117.
inline constexpr int64_t kManyTokens = 16;

template <int Block>
struct PanelPart {
  static constexpr int64_t kColumns = 768;  // 8 KB of codes: they share the L1 cache with the scales and a tile of tokens
  static constexpr int64_t kBlocks = kColumns / Block;
  alignas(64) uint8_t codes[kColumns * 16];
  alignas(64) float scales[kBlocks][16];
  alignas(64) float minimums[kBlocks][16];
  int64_t first = 0, count = 0;  // blocks of the row
};

template <int Bits, int Block, int M>
void part_tile(const PackedArguments& a, const PanelPart<Block>& part, int64_t row, int64_t token) {
  TokenTile<Block, M> tile(a, row, token);
  const bool with_minimum = has_minimum_term<Bits>(a);
  if (part.first > 0) tile.load_sums();
  for (int64_t i = 0; i < part.count; ++i) {
    Vec dots[kHalves][M], scale[kHalves], minimum[kHalves];
    block_dots<Bits, 8, Block, M>(part.codes + i * Block * 16, tile.q, (part.first + i) * Block, dots);
    for (int h = 0; h < kHalves; ++h) {
      scale[h] = load(part.scales[i] + h * kLaneRows);
      minimum[h] = load(part.minimums[i] + h * kLaneRows);
    }
    tile.add(part.first + i, dots, scale, minimum, with_minimum);
  }
  tile.store_sums();
}

template <int M>
struct Width {
  static constexpr int value = M;
};

// Calls f(token, Width<M>) on tiles that cover [begin, end).
template <typename F>
FRUGAL_INLINE void for_each_tile(int64_t begin, int64_t end, const F& f) {
  int64_t token = begin;
  if constexpr (kTokenTile >= 8) {
    for (; token + 8 <= end; token += 8) f(token, Width<8>{});
  }
  for (; token + 4 <= end; token += 4) f(token, Width<4>{});
  if (token + 2 <= end) {
    f(token, Width<2>{});
    token += 2;
  }
  if (token < end) f(token, Width<1>{});
}

template <int Bits, int Block>
void panel_of_many(const PackedArguments& a, const std::byte* panel, int64_t row) {
  PanelPart<Block> part;
  for_each_block<Bits, Block>(
      a, panel, [&](int64_t block, const uint8_t* codes, const PanelScales& s) __attribute__((always_inline)) {
        for (int unit = 0; unit < Block / 16; ++unit) unpack_unit<Bits>(codes + unit * Bits * 32, part.codes + (part.count * Block + unit * 16) * 16);
        for (int h = 0; h < kHalves; ++h) {
          store(part.scales[part.count] + h * kLaneRows, s.scale[h]);
          store(part.minimums[part.count] + h * kLaneRows, s.minimum[h]);
        }
        if (++part.count < part.kBlocks && block + 1 < a.blocks) return;
        // The next part comes from memory while the tiles of this one run.
        const uint8_t* ahead = codes + Bits * 2 * Block;
        const int64_t bytes_per_token = part.count * (Bits * 2 * Block + 64) / (a.token_end - a.token_begin);
        for_each_tile(a.token_begin, a.token_end, [&](int64_t token, auto width) {
          constexpr int kWidth = decltype(width)::value;
          for (const uint8_t* stop = ahead + kWidth * bytes_per_token; ahead < stop; ahead += 64) __builtin_prefetch(ahead);
          part_tile<Bits, Block, kWidth>(a, part, row, token);
        });
        part.first = block + 1;
        part.count = 0;
      });
}

template <int Bits, int Block>
void panel_range(const PackedArguments& a) {
  for (int64_t panel = a.panel_begin; panel < a.panel_end; ++panel) {
    const std::byte* data = a.panels + panel * a.panel_bytes;
    if constexpr (Bits < 8) {
      if (a.token_end - a.token_begin >= kManyTokens) {
        panel_of_many<Bits, Block>(a, data, panel * 16);
        continue;
      }
    }
    for_each_tile(a.token_begin, a.token_end, [&](int64_t token, auto width) { panel_tile<Bits, Block, decltype(width)::value>(a, data, panel * 16, token); });
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
