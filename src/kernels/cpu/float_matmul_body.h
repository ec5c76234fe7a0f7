// Float products: see float_matmul.h. Each output is one accumulator of Vec::kLanes sums over ascending columns, reduced by one
// fixed tree, in every tile shape. A tile of 4 tokens x 2 rows keeps 8 accumulators in registers and reads 6 vectors for 8
// multiply-adds; blocks of 32 tokens x 32 rows stay in the L2 cache.
#pragma once

namespace frugal::kernels::FRUGAL_ISA_NS {

template <FloatType Type>
struct Weights;
template <>
struct Weights<FloatType::f32> {
  using Element = float;
  static FRUGAL_INLINE Vec full(const float* p) { return load(p); }
  static FRUGAL_INLINE Vec part(const float* p, int n) { return load_part(p, n); }
};
template <>
struct Weights<FloatType::f16> {
  using Element = uint16_t;
  static FRUGAL_INLINE Vec full(const uint16_t* p) { return load_f16(p); }
  static FRUGAL_INLINE Vec part(const uint16_t* p, int n) { return load_f16_part(p, n); }
};
template <>
struct Weights<FloatType::bf16> {
  using Element = uint16_t;
  static FRUGAL_INLINE Vec full(const uint16_t* p) { return load_bf16(p); }
  static FRUGAL_INLINE Vec part(const uint16_t* p, int n) { return load_bf16_part(p, n); }
};

template <FloatType Type, int M, int N>
FRUGAL_INLINE void float_tile(const FloatArguments& a, int64_t token, int64_t row) {
  using W = Weights<Type>;
  const auto* weight = static_cast<const typename W::Element*>(a.weight) + row * a.weight_stride;
  const float* x = a.x + token * a.x_stride;
  Vec sum[M][N];
  for (int m = 0; m < M; ++m) {
    for (int n = 0; n < N; ++n) sum[m][n] = zero();
  }
  const auto step = [&](int64_t, const Vec(&w)[N], const Vec(&v)[M]) {
    for (int m = 0; m < M; ++m) {
      for (int n = 0; n < N; ++n) sum[m][n] = fma(v[m], w[n], sum[m][n]);
    }
  };
  for_lanes(
      a.columns,
      [&](int64_t k) {
        Vec w[N], v[M];
        for (int n = 0; n < N; ++n) w[n] = W::full(weight + n * a.weight_stride + k);
        for (int m = 0; m < M; ++m) v[m] = load(x + m * a.x_stride + k);
        step(k, w, v);
      },
      [&](int64_t k, int count) {
        Vec w[N], v[M];
        for (int n = 0; n < N; ++n) w[n] = W::part(weight + n * a.weight_stride + k, count);
        for (int m = 0; m < M; ++m) v[m] = load_part(x + m * a.x_stride + k, count);
        step(k, w, v);
      });
  for (int m = 0; m < M; ++m) {
    for (int n = 0; n < N; ++n) {
      float& out = a.out[(token + m) * a.out_stride + row + n];
      out = a.accumulate ? out + reduce_add(sum[m][n]) : reduce_add(sum[m][n]);
    }
  }
}

template <FloatType Type, int N>
inline void float_rows(const FloatArguments& a, int64_t token, int64_t token_end, int64_t row) {
  for (; token + 4 <= token_end; token += 4) float_tile<Type, 4, N>(a, token, row);
  for (; token < token_end; ++token) float_tile<Type, 1, N>(a, token, row);
}

template <FloatType Type>
void matmul_float_of(const FloatArguments& a, int64_t row_begin, int64_t row_end) {
  constexpr int64_t kBlock = 32;
  for (int64_t rows = row_begin; rows < row_end; rows += kBlock) {
    const int64_t rows_end = rows + kBlock < row_end ? rows + kBlock : row_end;
    for (int64_t tokens = 0; tokens < a.tokens; tokens += kBlock) {
      const int64_t tokens_end = tokens + kBlock < a.tokens ? tokens + kBlock : a.tokens;
      int64_t row = rows;
      if (tokens_end - tokens < 4) {  // few tokens: more rows at once, to have 4 independent sums
        for (; row + 4 <= rows_end; row += 4) float_rows<Type, 4>(a, tokens, tokens_end, row);
      }
      for (; row + 2 <= rows_end; row += 2) float_rows<Type, 2>(a, tokens, tokens_end, row);
      if (row < rows_end) float_rows<Type, 1>(a, tokens, tokens_end, row);
    }
  }
}

inline void matmul_float(const FloatArguments& a, int64_t row_begin, int64_t row_end) {
  switch (a.type) {
    case FloatType::f32: return matmul_float_of<FloatType::f32>(a, row_begin, row_end);
    case FloatType::f16: return matmul_float_of<FloatType::f16>(a, row_begin, row_end);
    case FloatType::bf16: return matmul_float_of<FloatType::bf16>(a, row_begin, row_end);
  }
}

}  // namespace frugal::kernels::FRUGAL_ISA_NS
