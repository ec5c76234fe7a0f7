#include "formats/nf4.h"

#include <cmath>
#include <functional>

#include "base/error.h"
#include "formats/golden_test.h"

namespace frugal::formats {
namespace {

constexpr int64_t kRows = 301;
constexpr int64_t kColumns = 77;

std::vector<float> decoded(const Nf4Weight& weight) {
  std::vector<float> values(static_cast<size_t>(weight.rows * weight.columns));
  for (int64_t row = 0; row < weight.rows; ++row) decode_row(weight, row, values.data() + row * weight.columns);
  return values;
}

double squared_error(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0.0;
  for (size_t i = 0; i < a.size(); ++i) sum += std::pow(static_cast<double>(a[i]) - b[i], 2);
  return sum;
}

TEST(Nf4, TheTablesAreThoseOfBitsandbytes) {
  const Golden& golden = nf4_golden();
  const auto expected = golden.read<float>("nf4/table");
  EXPECT_TRUE(std::equal(nf4_table().begin(), nf4_table().end(), expected.begin(), expected.end()));
  EXPECT_EQ(dynamic_table(), golden.read<float>("nf4/nested_table"));
}

TEST(Nf4, DecodesWhatBitsandbytesWrote) {
  const Golden& golden = nf4_golden();
  Nf4Weight weight;
  weight.rows = kRows;
  weight.columns = kColumns;
  weight.table = nf4_table();
  weight.codes = golden.read<uint8_t>("nf4/codes");
  weight.magnitude_codes = golden.read<uint8_t>("nf4/magnitude_codes");
  weight.nested_table = golden.read<float>("nf4/nested_table");
  weight.nested_magnitudes = golden.read<float>("nf4/nested_magnitudes");
  weight.nested_offset = golden.read<float>("nf4/nested_offset")[0];
  validate(weight, "w");
  const auto expected = golden.read<float>("nf4/decoded");
  const std::vector<float> values = decoded(weight);
  ASSERT_EQ(values.size(), expected.size());
  for (size_t i = 0; i < values.size(); ++i) ASSERT_NEAR(values[i], expected[i], 1e-7f * std::abs(expected[i])) << i;
}

TEST(Nf4, EncodesToTheCodesOfBitsandbytes) {
  const Golden& golden = nf4_golden();
  const auto dense = golden.read<float>("nf4/dense");
  const Nf4Weight weight = encode_nf4(dense.data(), kRows, kColumns, {});
  validate(weight, "w");
  EXPECT_EQ(weight.codes, golden.read<uint8_t>("nf4/codes"));
  EXPECT_NEAR(weight.nested_offset, golden.read<float>("nf4/nested_offset")[0], 1e-7f);
  // Ours is the nearest value of the table; bitsandbytes (0.50, CPU) looks the magnitude up in 16 bits, so theirs is at most one
  // such step, 2/65535, farther.
  const auto theirs = golden.read<uint8_t>("nf4/magnitude_codes");
  const auto nested = golden.read<float>("nf4/nested_magnitudes");
  ASSERT_EQ(weight.magnitude_codes.size(), theirs.size());
  for (size_t i = 0; i < theirs.size(); ++i) {
    const size_t first = i * static_cast<size_t>(weight.block_size), end = std::min(dense.size(), first + static_cast<size_t>(weight.block_size));
    float largest = 0.0f;
    for (size_t k = first; k < end; ++k) largest = std::max(largest, std::abs(dense[k]));
    const float scale = nested[i / static_cast<size_t>(weight.nested_block_size)];
    const float value = (largest - weight.nested_offset) / scale;
    const auto distance = [&](uint8_t code) { return std::abs(weight.nested_table[code] - value); };
    EXPECT_LE(distance(weight.magnitude_codes[i]), distance(theirs[i]) + 1e-6f) << i;
    EXPECT_LE(distance(theirs[i]), distance(weight.magnitude_codes[i]) + 2.0f / 65535.0f + 1e-6f) << i;
  }
}

TEST(Nf4, DoubleQuantizationCostsLittleAndZerosStayZero) {
  const auto dense = nf4_golden().read<float>("nf4/dense");
  const Nf4Weight plain = encode_nf4(dense.data(), kRows, kColumns, {.block_size = 64, .double_quantized = false});
  const Nf4Weight nested = encode_nf4(dense.data(), kRows, kColumns, {});
  validate(plain, "w");
  EXPECT_LT(nested.storage_bytes(), plain.storage_bytes());
  EXPECT_LT(squared_error(decoded(nested), dense), 1.01 * squared_error(decoded(plain), dense));
  const std::vector<float> zeros(200, 0.0f);
  EXPECT_EQ(decoded(encode_nf4(zeros.data(), 2, 100, {})), zeros);
}

TEST(Nf4, ValidationRefusesSizesThatDoNotFit) {
  const std::vector<float> dense(3 * 100, 0.5f);
  const Nf4Weight good = encode_nf4(dense.data(), 3, 100, {});
  validate(good, "w");
  const std::vector<std::function<void(Nf4Weight&)>> damages = {
      [](Nf4Weight& w) { w.rows = 0; },
      [](Nf4Weight& w) { w.columns = int64_t{1} << 62; },
      [](Nf4Weight& w) { w.block_size = 0; },
      [](Nf4Weight& w) { w.nested_block_size = -1; },
      [](Nf4Weight& w) { w.codes.pop_back(); },
      [](Nf4Weight& w) { w.magnitude_codes.pop_back(); },
      [](Nf4Weight& w) { w.nested_table.resize(255); },
      [](Nf4Weight& w) { w.nested_magnitudes.clear(); },
      [](Nf4Weight& w) { w.double_quantized = false; },
  };
  for (size_t i = 0; i < damages.size(); ++i) {
    Nf4Weight bad = good;
    damages[i](bad);
    EXPECT_THROW(validate(bad, "w"), Error) << "damage " << i;
  }
  EXPECT_THROW(encode_nf4(dense.data(), 3, 100, {.block_size = 0}), Error);
}

}  // namespace
}  // namespace frugal::formats
