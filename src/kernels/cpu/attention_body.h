// Attention of a block of queries that share a kv head over a range of cache entries: see attention.h. Lanes are entries in the
// scores and dimensions in the values, so nothing is summed across lanes; tiles of 32 entries x kQueryTile queries keep 8 to 12
// sums in registers. Few queries (decode) read the pages directly; many convert a tile to floats once. Either way each query sees
// the same sequence of operations: an entry that it must not see gets score -infinity, hence weight exactly 0.
#pragma once

#include "kernels/cpu/float_matmul_body.h"

namespace frugal::kernels::FRUGAL_ISA_NS {

inline constexpr int kTileVectors = kAttentionTile / Vec::kLanes;
inline constexpr int kQueryTile = Vec::kLanes >= 16 ? 4 : 3;  // AVX2 has 16 registers: 12 sums, 3 queries, 1 key
// From this many queries on, the conversion of a tile costs less than converting it for each kQueryTile of them.
inline constexpr int64_t kQueriesForCopy = 7;

// What an element of a cache is, as floats.
template <CacheType Type>
struct Cached;
template <>
struct Cached<CacheType::f32> : Weights<FloatType::f32> {};
template <>
struct Cached<CacheType::f16> : Weights<FloatType::f16> {};
template <>
struct Cached<CacheType::int8> {
  using Element = int8_t;
  static FRUGAL_INLINE Vec full(const int8_t* p) { return load_i8(p); }
  static FRUGAL_INLINE Vec part(const int8_t* p, int n) {
    alignas(16) int8_t buffer[16] = {};
    for (int i = 0; i < n; ++i) buffer[i] = p[i];
    return load_i8(buffer);
  }
};

// 32 entries of one kv head.
template <CacheType Type>
struct CacheTile {
  using Element = typename Cached<Type>::Element;
  const Element* keys;    // [dim][key_stride]
  const Element* values;  // [entries][value_stride]
  int64_t key_stride, value_stride;
};

// Calls f.template operator()<Q>(q) for tiles of Q = kQueryTile queries, then for the rest in smaller ones.
template <int Q, typename F>
FRUGAL_INLINE void for_query_tiles(int64_t begin, int64_t end, const F& f) {
  for (; begin + Q <= end; begin += Q) f.template operator()<Q>(begin);
  if constexpr (Q > 1) for_query_tiles<Q - 1>(begin, end, f);
}

// scores[q][e] = sum over d, ascending, of queries[q][d] * keys[d][e].
template <CacheType Type, int Q>
inline void score_tile(const float* queries, int64_t dim, const CacheTile<Type>& tile, float* scores) {
  Vec sum[Q][kTileVectors];
  for (int i = 0; i < Q; ++i) {
    for (int j = 0; j < kTileVectors; ++j) sum[i][j] = zero();
  }
  const auto* keys = tile.keys;
  for (int64_t d = 0; d < dim; ++d, keys += tile.key_stride) {
    Vec q[Q];
    for (int i = 0; i < Q; ++i) q[i] = set1(queries[i * dim + d]);
    for (int j = 0; j < kTileVectors; ++j) {
      const Vec k = Cached<Type>::full(keys + j * Vec::kLanes);
      for (int i = 0; i < Q; ++i) sum[i][j] = fma(q[i], k, sum[i][j]);
    }
  }
  for (int i = 0; i < Q; ++i) {
    for (int j = 0; j < kTileVectors; ++j) store(scores + i * kAttentionTile + j * Vec::kLanes, sum[i][j]);
  }
}

// out[q][d..] = out * correction + sum over entries, ascending, of weight[q][e] * values[e][d..]: W vectors, or one of n lanes.
template <CacheType Type, int Q, int W, bool Partial>
FRUGAL_INLINE void value_tile(const float* weights, const float* corrections, const typename Cached<Type>::Element* values, int64_t stride, int64_t count,
                              int n, int64_t out_stride, float* out) {
  Vec sum[Q][W];
  for (int i = 0; i < Q; ++i) {
    for (int j = 0; j < W; ++j) sum[i][j] = mul(load(out + i * out_stride + j * Vec::kLanes), set1(corrections[i]));
  }
  for (int64_t e = 0; e < count; ++e, values += stride) {
    Vec weight[Q];
    for (int i = 0; i < Q; ++i) weight[i] = set1(weights[i * kAttentionTile + e]);
    for (int j = 0; j < W; ++j) {
      const Vec v = Partial ? Cached<Type>::part(values, n) : Cached<Type>::full(values + j * Vec::kLanes);
      for (int i = 0; i < Q; ++i) sum[i][j] = fma(weight[i], v, sum[i][j]);
    }
  }
  for (int i = 0; i < Q; ++i) {
    for (int j = 0; j < W; ++j) store(out + i * out_stride + j * Vec::kLanes, sum[i][j]);
  }
}

template <CacheType Type, int Q>
inline void value_rows(const float* weights, const float* corrections, const CacheTile<Type>& tile, int64_t count, int64_t dim, int64_t out_stride,
                       float* out) {
  int64_t d = 0;
  for (; d + 4 * Vec::kLanes <= dim; d += 4 * Vec::kLanes) {
    value_tile<Type, Q, 4, false>(weights, corrections, tile.values + d, tile.value_stride, count, 0, out_stride, out + d);
  }
  for (; d + Vec::kLanes <= dim; d += Vec::kLanes) {
    value_tile<Type, Q, 1, false>(weights, corrections, tile.values + d, tile.value_stride, count, 0, out_stride, out + d);
  }
  if (d < dim) {
    value_tile<Type, Q, 1, true>(weights, corrections, tile.values + d, tile.value_stride, count, static_cast<int>(dim - d), out_stride, out + d);
  }
}

// Online softmax of one query over a tile: turns scores into weights, updates maximum and sum, returns the correction of what
// was summed before.
inline float update_softmax(const AttentionShape& shape, int64_t entry, int64_t position, float* scores, float* maximum, float* sum) {
  const float hidden = -__builtin_inff();
  const int64_t first = shape.window > 0 ? position - shape.window + 1 : 0;
  if (shape.softcap > 0) {
    const Vec cap = set1(shape.softcap), inverse = set1(1.0f / shape.softcap);
    map(scores, scores, kAttentionTile, [&](Vec s) { return mul(tanh(mul(s, inverse)), cap); });
  }
  if (entry < first || entry + kAttentionTile - 1 > position) {
    for (int64_t e = 0; e < kAttentionTile; ++e) {
      if (entry + e < first || entry + e > position) scores[e] = hidden;
    }
  }
  Vec top = load(scores);
  for (int i = Vec::kLanes; i < kAttentionTile; i += Vec::kLanes) top = max(top, load(scores + i));
  const float tile_maximum = reduce_max(top);
  const float next = tile_maximum > *maximum ? tile_maximum : *maximum;
  if (next == hidden) {
    for (int64_t e = 0; e < kAttentionTile; ++e) scores[e] = 0;
    return 1;
  }
  const Vec shift = set1(next);
  Vec total = zero();
  for (int i = 0; i < kAttentionTile; i += Vec::kLanes) {
    const Vec weight = exp_of_nonpositive(sub(load(scores + i), shift));
    store(scores + i, weight);
    total = add(total, weight);
  }
  float correction = 1;
  if (next != *maximum) {
    float lanes[Vec::kLanes];
    store(lanes, exp_of_nonpositive(set1(*maximum - next)));
    correction = lanes[0];
  }
  *sum = *sum * correction + reduce_add(total);
  *maximum = next;
  return correction;
}

// x[e] *= factors[e] over a tile.
FRUGAL_INLINE void multiply_tile(const float* factors, float* x) {
  for (int i = 0; i < kAttentionTile; i += Vec::kLanes) store(x + i, mul(load(x + i), load(factors + i)));
}

// Scratch of a block of queries.
struct AttentionBuffers {
  float* keys;         // a tile as floats: [dim][kAttentionTile]
  float* values;       // [kAttentionTile][padded value_dim]
  float* queries;      // [queries][dim], scaled
  float* scores;       // [queries][kAttentionTile]
  float* corrections;  // [queries]
};

template <CacheType Type>
inline void attend_tile(const AttentionArguments& a, const AttentionBuffers& b, const CacheTile<Type>& tile, const float* key_scales, const float* value_scales,
                        int64_t entry, int64_t count) {
  const AttentionShape& shape = *a.shape;
  const int64_t group = shape.heads / shape.kv_heads, queries = a.rows * group;
  for_query_tiles<kQueryTile>(
      0, queries, [&]<int Q>(int64_t q) { score_tile<Type, Q>(b.queries + q * shape.head_dim, shape.head_dim, tile, b.scores + q * kAttentionTile); });
  for (int64_t q = 0; q < queries; ++q) {
    float* scores = b.scores + q * kAttentionTile;
    if (key_scales) multiply_tile(key_scales, scores);
    b.corrections[q] = update_softmax(shape, entry, a.positions[q / group], scores, a.maximum + q, a.sum + q);
    if (value_scales) multiply_tile(value_scales, scores);
  }
  for_query_tiles<kQueryTile>(0, queries, [&]<int Q>(int64_t q) {
    value_rows<Type, Q>(b.scores + q * kAttentionTile, b.corrections + q, tile, count, shape.value_dim, a.padded_value, a.value + q * a.padded_value);
  });
}

// A tile as floats.
template <CacheType Type>
inline CacheTile<CacheType::f32> copy_tile(const CacheTile<Type>& tile, const AttentionShape& shape, int64_t count, const AttentionArguments& a,
                                           const AttentionBuffers& b) {
  for (int64_t d = 0; d < shape.head_dim; ++d) {
    for (int i = 0; i < kAttentionTile; i += Vec::kLanes) store(b.keys + d * kAttentionTile + i, Cached<Type>::full(tile.keys + d * tile.key_stride + i));
  }
  for (int64_t e = 0; e < count; ++e) {
    const auto* source = tile.values + e * tile.value_stride;
    float* out = b.values + e * a.padded_value;
    for_lanes(
        shape.value_dim, [&](int64_t d) { store(out + d, Cached<Type>::full(source + d)); },
        [&](int64_t d, int n) { store(out + d, Cached<Type>::part(source + d, n)); });
  }
  return {b.keys, b.values, kAttentionTile, a.padded_value};
}

template <CacheType Type>
inline void attention_of(const AttentionArguments& a) {
  using Element = typename Cached<Type>::Element;
  const AttentionShape& shape = *a.shape;
  const int64_t group = shape.heads / shape.kv_heads, queries = a.rows * group;
  AttentionBuffers b;
  b.keys = a.scratch;
  b.values = b.keys + kAttentionTile * shape.head_dim;
  b.scores = b.values + kAttentionTile * a.padded_value;
  b.queries = b.scores + queries * kAttentionTile;
  b.corrections = b.queries + queries * shape.head_dim;
  for (int64_t q = 0; q < queries; ++q) {
    const float* source = a.q + q / group * a.q_stride + q % group * shape.head_dim;
    for (int64_t d = 0; d < shape.head_dim; ++d) b.queries[q * shape.head_dim + d] = source[d] * shape.scale;
    a.maximum[q] = -__builtin_inff();
    a.sum[q] = 0;
  }
  __builtin_memset(a.value, 0, static_cast<size_t>(queries * a.padded_value) * 4);

  for (int64_t entry = a.entry_begin; entry < a.entry_end; entry += kAttentionTile) {
    const int64_t left = a.entry_end - entry;
    const int64_t count = left < kAttentionTile ? left : kAttentionTile;
    const int64_t page = entry / shape.page_size, offset = entry % shape.page_size;
    const auto* key_block = static_cast<const std::byte*>(a.key_pages[page]) + a.kv_head * a.key_block_bytes;
    const auto* value_block = static_cast<const std::byte*>(a.value_pages[page]) + a.kv_head * a.value_block_bytes;
    const auto* keys = reinterpret_cast<const Element*>(key_block);
    const auto* values = reinterpret_cast<const Element*>(value_block);
    const CacheTile<Type> tile = {keys + offset, values + offset * shape.value_dim, shape.page_size, shape.value_dim};
    const float* key_scales = nullptr;
    const float* value_scales = nullptr;
    if constexpr (Type == CacheType::int8) {
      key_scales = reinterpret_cast<const float*>(keys + shape.page_size * shape.head_dim) + offset;
      value_scales = reinterpret_cast<const float*>(values + shape.page_size * shape.value_dim) + offset;
    }
    if (Type != CacheType::f32 && queries >= kQueriesForCopy) {
      attend_tile(a, b, copy_tile(tile, shape, count, a, b), key_scales, value_scales, entry, count);
    } else {
      attend_tile(a, b, tile, key_scales, value_scales, entry, count);
    }
  }
}

inline void attention(const AttentionArguments& a) {
  switch (a.shape->cache) {
    case CacheType::f32: return attention_of<CacheType::f32>(a);
    case CacheType::f16: return attention_of<CacheType::f16>(a);
    case CacheType::int8: return attention_of<CacheType::int8>(a);
  }
}

inline void attention_merge(float* maximum, float* sum, float* value, const float* part_maximum, const float* part_sum, const float* part_value,
                            int64_t queries, int64_t padded) {
  for (int64_t q = 0; q < queries; ++q) {
    const float next = part_maximum[q] > maximum[q] ? part_maximum[q] : maximum[q];
    if (next == -__builtin_inff()) continue;
    float lanes[Vec::kLanes];
    store(lanes, exp(set1(maximum[q] - next)));
    const float own = lanes[0];
    store(lanes, exp(set1(part_maximum[q] - next)));
    const float other = lanes[0];
    sum[q] = sum[q] * own + part_sum[q] * other;
    maximum[q] = next;
    const Vec first = set1(own), second = set1(other);
    for (int64_t d = 0; d < padded; d += Vec::kLanes) {
      float* out = value + q * padded + d;
      store(out, fma(load(part_value + q * padded + d), second, mul(load(out), first)));
    }
  }
}

}  // namespace frugal::kernels::FRUGAL_ISA_NS
