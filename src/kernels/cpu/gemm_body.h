// Matrix products: see gemm.h. A tile of c has kGemmRows x kGemmColumns numbers in registers: 6 x 16 with 16 registers of 8 floats, 12 x 32 with 32 of 16.
#pragma once

namespace frugal::kernels::FRUGAL_ISA_NS {

inline constexpr int kGemmRows = Vec::kLanes == 16 ? 12 : 6;
inline constexpr int kGemmColumns = 2 * Vec::kLanes;

// `width` rows (of a) or columns (of b) from `first` on, as [depth][width], zeros where there are no more. `outer` is the stride from one of
// them to the next, `inner` along k.
template <int Width>
FRUGAL_INLINE void gemm_pack_panel(const float* data, int64_t outer, int64_t inner, int64_t count, int64_t depth, float* panel) {
  if (count == Width && outer == 1) {
    for (int64_t k = 0; k < depth; ++k) {
      for (int i = 0; i < Width; ++i) panel[k * Width + i] = data[k * inner + i];
    }
    return;
  }
  if (count == Width) {
    for (int64_t k = 0; k < depth; ++k) {
      for (int i = 0; i < Width; ++i) panel[k * Width + i] = data[i * outer + k * inner];
    }
    return;
  }
  for (int64_t k = 0; k < depth; ++k) {
    for (int64_t i = 0; i < Width; ++i) panel[k * Width + i] = i < count ? data[i * outer + k * inner] : 0.0f;
  }
}

template <FloatType Type>
FRUGAL_INLINE void to_floats(const uint16_t* halves, float* values, int64_t count) {
  for_lanes(
      count, [&](int64_t i) { store(values + i, Weights<Type>::full(halves + i)); },
      [&](int64_t i, int n) { store_part(values + i, Weights<Type>::part(halves + i, n), n); });
}

// The same of 16-bit numbers, which become floats along the direction in which they lie in memory.
template <int Width, FloatType Type>
FRUGAL_INLINE void gemm_pack_halves(const uint16_t* data, int64_t outer, int64_t inner, int64_t count, int64_t depth, float* panel) {
  if (outer == 1) {
    for (int64_t k = 0; k < depth; ++k) {
      to_floats<Type>(data + k * inner, panel + k * Width, count);
      for (int64_t i = count; i < Width; ++i) panel[k * Width + i] = 0.0f;
    }
    return;
  }
  constexpr int64_t kPart = 64;
  float row[kPart];
  for (int64_t i = 0; i < Width; ++i) {
    for (int64_t begin = 0; begin < depth; begin += kPart) {
      const int64_t some = depth - begin < kPart ? depth - begin : kPart;
      const uint16_t* from = data + i * outer + begin * inner;
      if (i >= count) {
        for (int64_t k = 0; k < some; ++k) row[k] = 0.0f;
      } else if (inner == 1) {
        to_floats<Type>(from, row, some);
      } else {
        for (int64_t k = 0; k < some; ++k) to_floats<Type>(from + k * inner, row + k, 1);
      }
      for (int64_t k = 0; k < some; ++k) panel[(begin + k) * Width + i] = row[k];
    }
  }
}

// To nearest, ties to even.
inline void round_to_bf16(float* values, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    uint32_t bits;
    __builtin_memcpy(&bits, values + i, 4);
    const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
    bits = (bits & 0x7fffffff) > 0x7f800000 ? bits : rounded;
    __builtin_memcpy(values + i, &bits, 4);
  }
}

inline void round_to_f16(float* values, int64_t count) {
  for_lanes(
      count,
      [&](int64_t i) {
        uint16_t halves[Vec::kLanes];
        store_f16_part(halves, load(values + i), Vec::kLanes);
        store(values + i, load_f16(halves));
      },
      [&](int64_t i, int n) {
        uint16_t halves[Vec::kLanes];
        store_f16_part(halves, load_part(values + i, n), n);
        store_part(values + i, load_f16_part(halves, n), n);
      });
}

template <int Width>
FRUGAL_INLINE void gemm_pack_any(const GemmPackArguments& a, int64_t panel) {
  const int64_t first = panel * Width, count = a.count - first < Width ? a.count - first : Width;
  float* const to = a.panels + first * a.depth;
  const auto* const halves = static_cast<const uint16_t*>(a.data) + first * a.outer;
  switch (a.type) {
    case FloatType::f32: gemm_pack_panel<Width>(static_cast<const float*>(a.data) + first * a.outer, a.outer, a.inner, count, a.depth, to); break;
    case FloatType::f16: gemm_pack_halves<Width, FloatType::f16>(halves, a.outer, a.inner, count, a.depth, to); break;
    case FloatType::bf16: gemm_pack_halves<Width, FloatType::bf16>(halves, a.outer, a.inner, count, a.depth, to); break;
  }
  if (a.precision == a.type) return;
  if (a.precision == FloatType::bf16) round_to_bf16(to, Width * a.depth);
  if (a.precision == FloatType::f16) round_to_f16(to, Width * a.depth);
}

inline void gemm_pack(const GemmPackArguments& a, int64_t panel_begin, int64_t panel_end) {
  for (int64_t p = panel_begin; p < panel_end; ++p) {
    if (a.columns)
      gemm_pack_any<kGemmColumns>(a, p);
    else
      gemm_pack_any<kGemmRows>(a, p);
  }
}

// One tile; rows and columns: how much of it there is.
FRUGAL_INLINE void gemm_tile(const float* a, const float* b, int64_t depth, float* c, int64_t c_stride, int64_t rows, int64_t columns, float alpha,
                             bool accumulate) {
  constexpr int L = Vec::kLanes;
  Vec sum[kGemmRows][2];
  for (int r = 0; r < kGemmRows; ++r) sum[r][0] = sum[r][1] = zero();
  for (int64_t k = 0; k < depth; ++k) {
    const Vec b0 = load(b), b1 = load(b + L);
    for (int r = 0; r < kGemmRows; ++r) {
      const Vec value = set1(a[r]);
      sum[r][0] = fma(value, b0, sum[r][0]);
      sum[r][1] = fma(value, b1, sum[r][1]);
    }
    a += kGemmRows;
    b += kGemmColumns;
  }
  const Vec factor = set1(alpha);
  if (rows == kGemmRows && columns == kGemmColumns) {
    for (int r = 0; r < kGemmRows; ++r) {
      float* to = c + r * c_stride;
      store(to, accumulate ? fma(sum[r][0], factor, load(to)) : mul(sum[r][0], factor));
      store(to + L, accumulate ? fma(sum[r][1], factor, load(to + L)) : mul(sum[r][1], factor));
    }
    return;
  }
  for (int64_t r = 0; r < rows; ++r) {
    for (int half = 0; half < 2; ++half) {
      const int64_t left = columns - half * L;
      if (left <= 0) break;
      const int n = left < L ? static_cast<int>(left) : L;
      float* to = c + r * c_stride + half * L;
      store_part(to, accumulate ? fma(sum[r][half], factor, load_part(to, n)) : mul(sum[r][half], factor), n);
    }
  }
}

// The rows of one block of a's panels against all of b's.
inline void gemm_block(const GemmBlockArguments& g) {
  for (int64_t column = 0; column < g.n; column += kGemmColumns) {
    const float* b = g.b_panels + column * g.depth;
    const int64_t columns = g.n - column < kGemmColumns ? g.n - column : kGemmColumns;
    for (int64_t row = 0; row < g.m; row += kGemmRows) {
      const int64_t rows = g.m - row < kGemmRows ? g.m - row : kGemmRows;
      gemm_tile(g.a_panels + row * g.depth, b, g.depth, g.c + row * g.c_stride + column, g.c_stride, rows, columns, g.alpha, g.accumulate);
    }
  }
}

}  // namespace frugal::kernels::FRUGAL_ISA_NS
