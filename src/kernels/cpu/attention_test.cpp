#include "kernels/cpu/attention.h"

#include <map>

#include "base/error.h"
#include "kernels/cpu/half.h"
#include "kernels/cpu/kernel_test_support.h"

namespace frugal::kernels {
namespace {

// A paged cache in each type, and its values in float, the oracle's view.
struct Cache {
  int64_t kv_heads, dim;
  std::vector<float> values;   // [length, kv_heads, dim], which fp16 holds
  std::vector<float> rounded;  // the same through int8
  std::map<CacheType, std::vector<Guarded<uint8_t>>> pages;

  Cache(CachePart part, int64_t length, int64_t page_size, int64_t heads, int64_t d, Rng& rng) : kv_heads(heads), dim(d) {
    for (int64_t i = 0; i < length * heads * d; ++i) values.push_back(half_to_float(float_to_half(static_cast<float>(rng.normal()))));
    for (int64_t row = 0; row < length * heads; ++row) {
      const float* x = values.data() + row * d;
      float largest = 0;
      for (int64_t i = 0; i < d; ++i) largest = std::max(largest, std::fabs(x[i]));
      const float scale = largest / 127.0f, inverse = 127.0f / largest;
      for (int64_t i = 0; i < d; ++i) rounded.push_back(scale * std::nearbyint(x[i] * inverse));
    }
    for (const CacheType type : {CacheType::f32, CacheType::f16, CacheType::int8}) {
      const CacheLayout layout = {type, heads, d, page_size};
      for (int64_t begin = 0; begin < length; begin += page_size) {
        // What lies behind the last entry must not be read as a value: every byte 0xff is a NaN in f32 and f16, and as a scale.
        Guarded<uint8_t>& page = pages[type].emplace_back(layout.page_bytes() + 4, uint8_t{0xff});
        const int64_t count = std::min(page_size, length - begin), some = count / 3;
        write_cache(part, layout, values.data() + begin * heads * d, some, aligned(page), 0);  // as a sequence grows
        write_cache(part, layout, values.data() + (begin + some) * heads * d, count - some, aligned(page), some);
      }
    }
  }
  static void* aligned(Guarded<uint8_t>& page) { return reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(page.data()) + 3) / 4 * 4); }
  std::vector<const void*> pointers(CacheType type) {
    std::vector<const void*> result;
    for (Guarded<uint8_t>& page : pages[type]) result.push_back(aligned(page));
    return result;
  }
  double at(CacheType type, int64_t entry, int64_t head, int64_t d) const {
    return (type == CacheType::int8 ? rounded : values)[static_cast<size_t>((entry * kv_heads + head) * dim + d)];
  }
};

std::vector<double> reference(const AttentionShape& s, const float* q, int64_t head, int64_t position, const Cache& keys, const Cache& values) {
  const int64_t kv_head = head / (s.heads / s.kv_heads);
  std::vector<double> scores, out(static_cast<size_t>(values.dim), 0.0);
  const int64_t first = s.window > 0 ? std::max<int64_t>(0, position - s.window + 1) : 0;
  double maximum = -INFINITY, sum = 0;
  for (int64_t e = first; e <= position; ++e) {
    double score = 0;
    for (int64_t d = 0; d < s.head_dim; ++d) score += q[d] * keys.at(s.cache, e, kv_head, d);
    score *= s.scale;
    if (s.softcap > 0) score = s.softcap * std::tanh(score / s.softcap);
    scores.push_back(score);
    maximum = std::max(maximum, score);
  }
  for (double& score : scores) sum += score = std::exp(score - maximum);
  for (int64_t e = first; e <= position; ++e) {
    for (int64_t d = 0; d < values.dim; ++d) {
      out[static_cast<size_t>(d)] += scores[static_cast<size_t>(e - first)] / sum * values.at(s.cache, e, kv_head, d);
    }
  }
  return out;
}

class AttentionTest : public KernelTest {
 protected:
  void expect_equal(AttentionShape shape, int64_t length, int64_t value_dim, std::vector<int64_t> positions) {
    Cache keys(CachePart::keys, length, shape.page_size, shape.kv_heads, shape.head_dim, rng_);
    Cache values(CachePart::values, length, shape.page_size, shape.kv_heads, value_dim, rng_);
    shape.value_dim = value_dim;
    const auto rows = static_cast<int64_t>(positions.size());
    const int64_t q_stride = shape.heads * shape.head_dim + 1, out_stride = shape.heads * value_dim + 1;
    Guarded<float> q(rows * q_stride);
    fill_normal(q, rng_);
    for (const CacheType type : {CacheType::f32, CacheType::f16, CacheType::int8}) {
      shape.cache = type;
      const auto key_pages = keys.pointers(type), value_pages = values.pointers(type);
      Guarded<float> out(rows * out_stride, 9.0f);
      AttentionSequence s;
      s.q = q.data();
      s.q_stride = q_stride;
      s.out = out.data();
      s.out_stride = out_stride;
      s.rows = rows;
      s.positions = positions.data();
      s.key_pages = key_pages.data();
      s.value_pages = value_pages.data();
      s.length = length;
      attention(shape, std::span(&s, 1));
      ASSERT_TRUE(out.intact());
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t h = 0; h < shape.heads; ++h) {
          const auto expected = reference(shape, q.data() + r * q_stride + h * shape.head_dim, h, positions[static_cast<size_t>(r)], keys, values);
          for (int64_t d = 0; d < value_dim; ++d) {
            ASSERT_NEAR(out[r * out_stride + h * value_dim + d], expected[static_cast<size_t>(d)], 2e-5) << "row " << r << " head " << h;
          }
        }
        ASSERT_EQ(out[r * out_stride + shape.heads * value_dim], 9.0f);
      }
    }
  }
};

AttentionShape shape_of(int64_t heads, int64_t kv_heads, int64_t dim, int64_t page) {
  AttentionShape s;
  s.heads = heads;
  s.kv_heads = kv_heads;
  s.head_dim = dim;
  s.page_size = page;
  s.scale = 1 / std::sqrt(static_cast<float>(dim));
  return s;
}

TEST_P(AttentionTest, DecodeAndPromptEqualTheDefinition) {
  expect_equal(shape_of(9, 3, 64, 32), 70, 64, {69});
  std::vector<int64_t> prompt;
  for (int64_t i = 0; i < 45; ++i) prompt.push_back(i);
  expect_equal(shape_of(9, 3, 64, 32), 45, 64, prompt);
  expect_equal(shape_of(4, 4, 20, 992), 45, 36, prompt);
  expect_equal(shape_of(6, 1, 7, 32), 40, 7, {3, 39, 0, 17});
}

TEST_P(AttentionTest, LongCachesAreMergedFromChunks) {
  const int64_t length = 1100;
  expect_equal(shape_of(4, 2, 32, 64), length, 32, {1099});
  expect_equal(shape_of(4, 2, 32, 64), length, 32, {1023, 5, 511, 512, 1099});
}

TEST_P(AttentionTest, WindowAndSoftcap) {
  AttentionShape shape = shape_of(4, 2, 32, 32);
  shape.window = 40;
  expect_equal(shape, 700, 32, {699, 39, 40, 0, 552});
  shape.window = 0;
  shape.softcap = 2;
  expect_equal(shape, 90, 32, {89, 10, 31, 32});
  shape.window = 1;
  expect_equal(shape, 90, 32, {89, 0, 31, 32});
}

TEST_P(AttentionTest, ARowsResultDoesNotDependOnItsBatchNorOnTheTeam) {
  for (const auto& [window, type] : {std::pair{0, CacheType::f32}, std::pair{70, CacheType::f16}, std::pair{0, CacheType::int8}}) {
    AttentionShape shape = shape_of(6, 2, 43, 64);
    shape.window = window;
    shape.cache = type;
    const int64_t length = 1300, rows = 30, width = 6 * 43;
    Cache keys(CachePart::keys, length, 64, 2, 43, rng_), values(CachePart::values, length, 64, 2, 43, rng_);
    const auto key_pages = keys.pointers(type), value_pages = values.pointers(type);
    std::vector<float> q(static_cast<size_t>(rows * width)), together(q.size()), alone(static_cast<size_t>(width));
    fill_normal(q, rng_);
    std::vector<int64_t> positions;
    for (int64_t r = 0; r < rows; ++r) positions.push_back(r < 20 ? 1000 + 3 * r : rng_.between(0, length - 1));
    AttentionSequence s;
    s.q = q.data();
    s.out = together.data();
    s.rows = rows;
    s.positions = positions.data();
    s.key_pages = key_pages.data();
    s.value_pages = value_pages.data();
    s.length = length;
    {
      const TeamSize team(1);
      attention(shape, std::span(&s, 1));
    }
    const TeamSize team(3);
    for (int64_t r = 0; r < rows; ++r) {
      AttentionSequence one = s;
      one.rows = 1;
      one.q = q.data() + r * width;
      one.positions = &positions[static_cast<size_t>(r)];
      one.out = alone.data();
      one.length = positions[static_cast<size_t>(r)] + 1;
      attention(shape, std::span(&one, 1));
      ASSERT_EQ(std::memcmp(alone.data(), together.data() + r * width, static_cast<size_t>(width) * 4), 0) << "row " << r << " window " << window;
    }
  }
}

TEST_P(AttentionTest, RowsWithoutEntriesAreZeroAndBadPositionsAreErrors) {
  AttentionShape shape = shape_of(2, 1, 8, 32);
  Cache keys(CachePart::keys, 4, 32, 1, 8, rng_), values(CachePart::values, 4, 32, 1, 8, rng_);
  const auto key_pages = keys.pointers(CacheType::f32), value_pages = values.pointers(CacheType::f32);
  std::vector<float> q(16, 1.0f), out(16, 5.0f);
  int64_t position = -1;
  AttentionSequence s;
  s.q = q.data();
  s.out = out.data();
  s.rows = 1;
  s.positions = &position;
  s.key_pages = key_pages.data();
  s.value_pages = value_pages.data();
  s.length = 4;
  attention(shape, std::span(&s, 1));
  for (const float v : out) EXPECT_EQ(v, 0.0f);
  position = 4;
  EXPECT_THROW(attention(shape, std::span(&s, 1)), Error);
  position = 3;
  shape.page_size = 24;
  EXPECT_THROW(attention(shape, std::span(&s, 1)), Error);
  shape.page_size = 32;
  shape.kv_heads = 3;
  EXPECT_THROW(attention(shape, std::span(&s, 1)), Error);
}

TEST_P(AttentionTest, WhatIsNotFiniteIsNotHiddenByEightBits) {
  const CacheLayout layout = {CacheType::int8, 1, 8, 32};
  std::vector<float> row(8, 1.0f), page(static_cast<size_t>(layout.page_bytes()) / 4), q(8, 1.0f), out(8);
  row[3] = INFINITY;
  write_cache(CachePart::keys, layout, row.data(), 1, page.data(), 0);
  const void* pages = page.data();
  const int64_t position = 0;
  AttentionShape shape = shape_of(1, 1, 8, 32);
  shape.cache = CacheType::int8;
  AttentionSequence s;
  s.q = q.data();
  s.out = out.data();
  s.rows = 1;
  s.positions = &position;
  s.key_pages = s.value_pages = &pages;
  s.length = 1;
  attention(shape, std::span(&s, 1));
  EXPECT_TRUE(std::isnan(out[0]));
  EXPECT_THROW(write_cache(CachePart::keys, layout, row.data(), 1, page.data(), 32), Error);
  EXPECT_THROW(write_cache(CachePart::values, {CacheType::f16, 1, 8, 24}, row.data(), 1, page.data(), 0), Error);
}

FRUGAL_FOR_EACH_SET(AttentionTest);

}  // namespace
}  // namespace frugal::kernels
