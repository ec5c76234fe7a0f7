#include "formats/sparse.h"

#include <algorithm>
#include <functional>

#include "base/error.h"
#include "formats/golden_test.h"

namespace frugal::formats {
namespace {

std::vector<float> decoded(const SparseWeight& weight) {
  std::vector<float> values(static_cast<size_t>(weight.rows * weight.columns));
  for (int64_t row = 0; row < weight.rows; ++row) decode_row(weight, row, values.data() + row * weight.columns);
  return values;
}

std::vector<float> random_dense(size_t count, std::mt19937& random) {
  std::vector<float> dense(count);
  for (float& value : dense) value = static_cast<float>(static_cast<int>(random() % 2001) - 1000) / 512.0f;  // exact in F16
  return dense;
}

// Keeps n of each m columns, chosen at random.
std::vector<uint8_t> random_pattern(int n, int m, size_t count, std::mt19937& random) {
  std::vector<uint8_t> keep(count, 0);
  for (size_t start = 0; start < count; start += static_cast<size_t>(m)) {
    for (int i = 0; i < n; ++i) keep[start + static_cast<size_t>(i)] = 1;
    std::shuffle(keep.begin() + static_cast<int64_t>(start), keep.begin() + static_cast<int64_t>(start) + m, random);
  }
  return keep;
}

SparseWeight n_of_m(int n, int m, int64_t rows, int64_t columns, std::mt19937& random) {
  const std::vector<float> dense = random_dense(static_cast<size_t>(rows * columns), random);
  const std::vector<uint8_t> keep = random_pattern(n, m, dense.size(), random);
  SparseWeight weight = make_sparse(dense.data(), keep.data(), rows, columns, "F16");
  weight.pattern = SparsePattern::n_of_m;
  weight.n = n;
  weight.m = m;
  return weight;
}

// As a reader does it: only what the file says is known.
SparseWeight read_back(const SparseWeight& weight) {
  SparseWeight again = weight;
  again.mask.clear();
  again.values.clear();
  again.row_offsets.clear();
  again.grouped.codes.clear();
  from_parts(to_parts(weight), again, "w");
  return again;
}

TEST(Sparse, ABitmapKeepsTheNonZerosAndTheirPlaces) {
  std::mt19937 random(test_seed());
  for (const int64_t columns : {1, 7, 8, 9, 75}) {
    std::vector<float> dense = random_dense(static_cast<size_t>(6 * columns), random);
    for (float& value : dense) value = random() % 3 == 0 ? value : 0.0f;
    const SparseWeight weight = make_sparse(dense.data(), 6, columns, "F16");
    validate(weight, "w");
    EXPECT_EQ(decoded(weight), dense);
    SparseWeight unindexed = weight;
    unindexed.row_offsets.clear();
    EXPECT_EQ(decoded(unindexed), dense);
    EXPECT_EQ(decoded(read_back(weight)), dense);
    EXPECT_EQ(weight.storage_bytes(), 6u * static_cast<uint64_t>((columns + 7) / 8) + 6 * 8 + 2 * weight.values.size());
  }
}

TEST(Sparse, TheMaskIsPackedAsCompressedTensorsPacksIt) {
  const auto keep = formats_golden().read<uint8_t>("pack/mask.bytes");
  const std::vector<float> dense(keep.size(), 1.0f);
  const SparseWeight weight = make_sparse(dense.data(), keep.data(), 5, 75, "BF16");
  EXPECT_EQ(to_parts(weight).positions, formats_golden().read<uint8_t>("pack/mask.packed"));
}

TEST(Sparse, ValuesAreRoundedToTheirFormatOnce) {
  const float dense[] = {0.1f, 0.0f, -3.14159f};
  const SparseWeight weight = make_sparse(dense, 1, 3, "BF16");
  EXPECT_EQ(decoded(weight), decoded(read_back(weight)));
  EXPECT_NEAR(weight.values[1], -3.14159f, 0.01f);
  EXPECT_NE(weight.values[1], -3.14159f);
}

TEST(Sparse, TwoOfFourAndFourOfEightGoThroughCompactCodes) {
  std::mt19937 random(test_seed());
  for (const int64_t columns : {4, 8, 12, 64}) {
    const SparseWeight weight = n_of_m(2, 4, 3, columns, random);
    validate(weight, "w");
    EXPECT_EQ(decoded(read_back(weight)), decoded(weight));
    // Four bits for each four weights, a half byte padded, and half of the values.
    EXPECT_EQ(weight.storage_bytes(), 3u * static_cast<uint64_t>((columns + 7) / 8) + 3 * 2 * static_cast<uint64_t>(columns) / 2);
  }
  for (const int64_t columns : {8, 64}) {
    const SparseWeight weight = n_of_m(4, 8, 3, columns, random);
    validate(weight, "w");
    EXPECT_EQ(decoded(read_back(weight)), decoded(weight));
  }
  const float dense[] = {1.0f, 0.0f, 0.0f, 2.0f};
  SparseWeight weight = make_sparse(dense, 1, 4, "F32");
  weight.pattern = SparsePattern::n_of_m;
  EXPECT_EQ(to_parts(weight).positions, std::vector<uint8_t>{0 | 3 << 2});
}

TEST(Sparse, GroupedValuesLoseTheCodesOfDroppedEntriesOnDisk) {
  std::mt19937 random(test_seed());
  for (const bool two_of_four : {false, true}) {
    for (int bits = 1; bits <= 8; ++bits) {
      SparseWeight weight = n_of_m(2, 4, 5, 44, random);
      if (!two_of_four) weight.pattern = SparsePattern::bitmap;
      weight.values.clear();
      weight.grouped = make_grouped({5, 44, bits, 16, false});
      std::vector<uint8_t> codes(44);
      for (int64_t row = 0; row < 5; ++row) {
        for (uint8_t& code : codes) code = static_cast<uint8_t>(random() % (1u << bits));
        pack_row(weight.grouped, row, codes.data());
      }
      for (float& scale : weight.grouped.scales) scale = static_cast<float>(1 + random() % 100) / 64.0f;
      validate(weight, "w");
      EXPECT_EQ(decoded(read_back(weight)), decoded(weight));
      const uint64_t words = static_cast<uint64_t>((22 * bits + 31) / 32);
      EXPECT_EQ(to_parts(weight).codes.size(), 5 * words);
      const uint64_t zeros = 4 * 3 * static_cast<uint64_t>((5 * bits + 31) / 32);
      EXPECT_EQ(weight.storage_bytes(), 5 * 6 + (two_of_four ? 0 : 5 * 8) + 4 * 5 * words + 2 * 5 * 3 + zeros);
    }
  }
}

TEST(Sparse, ValidationRefusesMasksOffsetsAndSizesThatDoNotFit) {
  std::mt19937 random(test_seed());
  const SparseWeight good = n_of_m(2, 4, 4, 12, random);
  validate(good, "w");
  const std::vector<std::function<void(SparseWeight&)>> damages = {
      [](SparseWeight& w) { w.rows = 0; },
      [](SparseWeight& w) { w.columns = int64_t{1} << 62; },
      [](SparseWeight& w) { w.columns = 11; },
      [](SparseWeight& w) { w.n = 3; },
      [](SparseWeight& w) { w.n = 1, w.m = 2; },
      [](SparseWeight& w) { w.mask.pop_back(); },
      [](SparseWeight& w) { w.mask[0] = 0x0f; },
      [](SparseWeight& w) { w.mask[1] = static_cast<uint8_t>(w.mask[1] | 0xf0); },
      [](SparseWeight& w) { w.values.pop_back(); },
      [](SparseWeight& w) { w.value_format = "Q4_0"; },
      [](SparseWeight& w) { w.value_format = "?"; },
      [](SparseWeight& w) { w.row_offsets[2] += 1; },
      [](SparseWeight& w) { w.row_offsets.pop_back(); },
      [](SparseWeight& w) {
        w.grouped = make_grouped({4, 16, 4, 16, true});
      },
  };
  for (size_t i = 0; i < damages.size(); ++i) {
    SparseWeight bad = good;
    damages[i](bad);
    EXPECT_THROW(validate(bad, "w"), Error) << "damage " << i;
  }
  const std::vector<std::function<void(SparseParts&)>> part_damages = {
      [](SparseParts& p) { p.positions.pop_back(); },
      [](SparseParts& p) { p.positions[0] = 0; },
      [](SparseParts& p) { p.positions[0] = 0x44 | 0x11; },  // second position not above the first
      [](SparseParts& p) { p.values.pop_back(); },
  };
  for (size_t i = 0; i < part_damages.size(); ++i) {
    SparseParts parts = to_parts(good);
    part_damages[i](parts);
    SparseWeight weight = good;
    EXPECT_THROW(from_parts(parts, weight, "w"), Error) << "damage " << i;
  }
}

}  // namespace
}  // namespace frugal::formats
