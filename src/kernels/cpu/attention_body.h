// Attention of a block of queries that share a kv head over a range of cache entries: see attention.h. Tiles of 32 entries are
// copied (converted) to scratch once and used by every query of the block. Every query sees the same sequence of operations
// whatever the block holds: an entry that it must not see gets score -infinity, hence weight exactly 0.
#pragma once

namespace frugal::kernels::FRUGAL_ISA_NS {

// Copies `count` entries of `dim` elements to rows of `padded` floats, zeros behind and after them.
inline void load_tile(const AttentionShape& shape, const void* const* pages, int64_t entry, int64_t count, int64_t offset, int64_t stride, int64_t dim,
                      int64_t padded, float* tile) {
  for (int64_t e = 0; e < kAttentionTile; ++e, tile += padded) {
    if (e >= count) {
      __builtin_memset(tile, 0, static_cast<size_t>(padded) * 4);
      continue;
    }
    const void* page = pages[(entry + e) / shape.page_size];
    const int64_t at = (entry + e) % shape.page_size * stride + offset;
    int64_t i = 0;
    if (shape.cache == CacheType::f16) {
      from_f16(static_cast<const uint16_t*>(page) + at, tile, dim);
      i = dim;
    } else {
      const float* source = static_cast<const float*>(page) + at;
      for (; i + Vec::kLanes <= dim; i += Vec::kLanes) store(tile + i, load(source + i));
      for (; i < dim; ++i) tile[i] = source[i];
    }
    for (; i < padded; ++i) tile[i] = 0;
  }
}

// scores[q][e] = dot(queries[q], keys[e]) for Q queries and E entries, Q * E == 8.
template <int Q, int E>
FRUGAL_INLINE void score_tile(const float* queries, const float* keys, int64_t padded, float* scores) {
  Vec sum[8];
  for (int i = 0; i < 8; ++i) sum[i] = zero();
  for (int64_t d = 0; d < padded; d += Vec::kLanes) {
    Vec q[Q], k[E];
    for (int i = 0; i < Q; ++i) q[i] = load(queries + i * padded + d);
    for (int j = 0; j < E; ++j) k[j] = load(keys + j * padded + d);
    for (int i = 0; i < Q; ++i) {
      for (int j = 0; j < E; ++j) sum[i * E + j] = fma(q[i], k[j], sum[i * E + j]);
    }
  }
  float results[8];
  reduce_add_8(sum, results);
  for (int i = 0; i < Q; ++i) {
    for (int j = 0; j < E; ++j) scores[i * kAttentionTile + j] = results[i * E + j];
  }
}

// value[q][d..] = value * correction + sum over entries of weight[q][e] * values[e][d..], W vectors wide.
template <int Q, int W>
FRUGAL_INLINE void value_tile(const float* weights, const float* corrections, const float* values, int64_t count, int64_t padded, float* out) {
  Vec sum[Q][W];
  for (int i = 0; i < Q; ++i) {
    for (int j = 0; j < W; ++j) sum[i][j] = mul(load(out + i * padded + j * Vec::kLanes), set1(corrections[i]));
  }
  for (int64_t e = 0; e < count; ++e) {
    Vec v[W];
    for (int j = 0; j < W; ++j) v[j] = load(values + e * padded + j * Vec::kLanes);
    for (int i = 0; i < Q; ++i) {
      const Vec weight = set1(weights[i * kAttentionTile + e]);
      for (int j = 0; j < W; ++j) sum[i][j] = fma(weight, v[j], sum[i][j]);
    }
  }
  for (int i = 0; i < Q; ++i) {
    for (int j = 0; j < W; ++j) store(out + i * padded + j * Vec::kLanes, sum[i][j]);
  }
}

template <int Q, int W>
inline void value_rows(const float* weights, const float* corrections, const float* values, int64_t count, int64_t padded, float* out) {
  int64_t d = 0;
  for (; d + W * Vec::kLanes <= padded; d += W * Vec::kLanes) value_tile<Q, W>(weights, corrections, values + d, count, padded, out + d);
  for (; d < padded; d += Vec::kLanes) value_tile<Q, 1>(weights, corrections, values + d, count, padded, out + d);
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
    const Vec weight = exp(sub(load(scores + i), shift));
    store(scores + i, weight);
    total = add(total, weight);
  }
  float lanes[Vec::kLanes];
  store(lanes, exp(set1(*maximum - next)));
  *sum = *sum * lanes[0] + reduce_add(total);
  *maximum = next;
  return lanes[0];
}

inline void attention(const AttentionArguments& a) {
  const AttentionShape& shape = *a.shape;
  const int64_t group = shape.heads / shape.kv_heads;
  const int64_t queries = a.rows * group;
  const int64_t padded = (shape.head_dim + kAttentionLanes - 1) / kAttentionLanes * kAttentionLanes;
  const int64_t padded_value = (shape.value_dim + kAttentionLanes - 1) / kAttentionLanes * kAttentionLanes;
  float* keys = a.scratch;
  float* values = keys + kAttentionTile * padded;
  float* scaled = values + kAttentionTile * padded_value;
  float* scores = scaled + queries * padded;
  float* corrections = scores + queries * kAttentionTile;
  for (int64_t q = 0; q < queries; ++q) {
    const float* source = a.q + q / group * a.q_stride + q % group * shape.head_dim;
    for (int64_t d = 0; d < padded; ++d) scaled[q * padded + d] = d < shape.head_dim ? source[d] * shape.scale : 0;
    a.maximum[q] = -__builtin_inff();
    a.sum[q] = 0;
  }
  __builtin_memset(a.value, 0, static_cast<size_t>(queries * padded_value) * 4);

  for (int64_t entry = a.entry_begin; entry < a.entry_end; entry += kAttentionTile) {
    const int64_t left = a.entry_end - entry;
    const int64_t count = left < kAttentionTile ? left : kAttentionTile;
    load_tile(shape, a.key_pages, entry, count, a.kv_head * shape.key_head_stride, shape.key_entry_stride, shape.head_dim, padded, keys);
    load_tile(shape, a.value_pages, entry, count, a.kv_head * shape.value_head_stride, shape.value_entry_stride, shape.value_dim, padded_value, values);
    int64_t q = 0;
    for (; q + 4 <= queries; q += 4) {
      for (int64_t e = 0; e < kAttentionTile; e += 2) {
        score_tile<4, 2>(scaled + q * padded, keys + e * padded, padded, scores + q * kAttentionTile + e);
      }
    }
    for (; q < queries; ++q) {
      for (int64_t e = 0; e < kAttentionTile; e += 8) {
        score_tile<1, 8>(scaled + q * padded, keys + e * padded, padded, scores + q * kAttentionTile + e);
      }
    }
    for (q = 0; q < queries; ++q) {
      corrections[q] = update_softmax(shape, entry, a.positions[q / group], scores + q * kAttentionTile, a.maximum + q, a.sum + q);
    }
    q = 0;
    for (; q + 4 <= queries; q += 4) {
      value_rows<4, 2>(scores + q * kAttentionTile, corrections + q, values, count, padded_value, a.value + q * padded_value);
    }
    for (; q < queries; ++q) {
      value_rows<1, 4>(scores + q * kAttentionTile, corrections + q, values, count, padded_value, a.value + q * padded_value);
    }
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
