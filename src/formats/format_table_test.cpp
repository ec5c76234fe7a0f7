#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <set>

#include "base/error.h"
#include "formats/format.h"
#include "formats/golden_test.h"

namespace frugal::formats {
namespace {

// Every row, so that a new one is tested the moment it exists.
class EveryFormat : public ::testing::TestWithParam<Format> {};

std::string name_of(const ::testing::TestParamInfo<Format>& info) { return std::string(info.param.id); }

INSTANTIATE_TEST_SUITE_P(Table, EveryFormat, ::testing::ValuesIn(format_table().begin(), format_table().end()), name_of);

bool same_number(float a, float b) { return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b) || (std::isnan(a) && std::isnan(b)); }

std::vector<float> decoded(const Format& format, const std::vector<std::byte>& bytes, size_t count) {
  std::vector<float> weights(count);
  format.decode(bytes.data(), weights.data(), static_cast<int64_t>(count));
  return weights;
}

std::vector<std::byte> encoded(const Format& format, const std::vector<float>& weights, const float* importance = nullptr) {
  std::vector<std::byte> bytes(bytes_of(format, weights.size()));
  format.encode(weights.data(), importance, bytes.data(), static_cast<int64_t>(weights.size()));
  return bytes;
}

double squared_error(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0.0;
  for (size_t i = 0; i < a.size(); ++i) sum += std::pow(static_cast<double>(a[i]) - b[i], 2);
  return sum;
}

TEST_P(EveryFormat, DecodesRandomBlocksToTheFloatsOfTheOracle) {
  const Format& format = GetParam();
  if (format.decode == nullptr) return;
  const Golden& golden = formats_golden();
  const std::string name = fmt::format("decode/{}", format.id);
  const auto bytes = golden.read<std::byte>(name + ".in");
  const auto expected = golden.read<float>(name + ".out");
  ASSERT_FALSE(expected.empty());
  ASSERT_EQ(bytes.size(), bytes_of(format, expected.size()));
  const std::vector<float> weights = decoded(format, bytes, expected.size());
  for (size_t i = 0; i < weights.size(); ++i) {
    ASSERT_TRUE(same_number(weights[i], expected[i])) << "weight " << i << ": " << weights[i] << " instead of " << expected[i];
  }
}

TEST_P(EveryFormat, DecodesFromAnyAlignment) {
  const Format& format = GetParam();
  if (format.decode == nullptr) return;
  const auto bytes = formats_golden().read<std::byte>(fmt::format("decode/{}.in", format.id));
  std::vector<std::byte> shifted(bytes.size() + 1);
  std::copy(bytes.begin(), bytes.end(), shifted.begin() + 1);
  const int64_t count = static_cast<int64_t>(bytes.size()) / format.block_bytes * format.block_weights;
  const std::vector<float> expected = decoded(format, bytes, static_cast<size_t>(count));
  std::vector<float> weights(expected.size());
  format.decode(shifted.data() + 1, weights.data(), count);
  EXPECT_TRUE(std::equal(weights.begin(), weights.end(), expected.begin(), same_number));
}

TEST_P(EveryFormat, EncodesToTheBytesOfTheOracleWhereItHasAnEncoder) {
  const Format& format = GetParam();
  const Golden& golden = formats_golden();
  const std::string name = fmt::format("encode/{}.out", format.id);
  if (format.encode == nullptr || !golden.has(name)) return;
  const auto floats = golden.read<float>("encode/floats.in");
  const auto expected = golden.read<std::byte>(name);
  const std::vector<std::byte> bytes = encoded(format, floats);
  ASSERT_EQ(bytes.size(), expected.size());
  for (size_t i = 0; i < bytes.size(); ++i) {
    ASSERT_EQ(bytes[i], expected[i]) << "byte " << i % static_cast<size_t>(format.block_bytes) << " of block " << i / static_cast<size_t>(format.block_bytes);
  }
}

TEST_P(EveryFormat, SplitsIntoCodesWhoseScaledValuesAreTheDecodedWeights) {
  const Format& format = GetParam();
  EXPECT_EQ(format.split == nullptr, format.integer.bits == 0);
  if (format.split == nullptr) return;
  ASSERT_GT(format.integer.group, 0);
  ASSERT_EQ(format.block_weights % format.integer.group, 0);
  const auto bytes = formats_golden().read<std::byte>(fmt::format("decode/{}.in", format.id));
  const size_t count = bytes.size() / static_cast<size_t>(format.block_bytes) * static_cast<size_t>(format.block_weights);
  const std::vector<float> weights = decoded(format, bytes, count);
  const size_t group = static_cast<size_t>(format.integer.group);
  std::vector<uint8_t> codes(count);
  std::vector<float> scales(count / group);
  std::vector<float> minimums(count / group);
  format.split(bytes.data(), codes.data(), scales.data(), minimums.data(), static_cast<int64_t>(count));
  for (size_t i = 0; i < count; ++i) {
    ASSERT_LT(codes[i], 1 << format.integer.bits);
    const float scale = scales[i / group];
    const float minimum = minimums[i / group];
    if (!std::isfinite(scale) || !std::isfinite(minimum) || !std::isfinite(weights[i])) continue;
    const double value = static_cast<double>(scale) * codes[i] + minimum;
    const double tolerance = 1e-6 * (std::abs(static_cast<double>(scale)) * codes[i] + std::abs(static_cast<double>(minimum)));
    ASSERT_NEAR(weights[i], value, tolerance) << "weight " << i;
  }
}

// What rounding to nearest gives: a float format its half unit in the last place; an integer format of b bits, whose step is
// 2 max / 2^b, a twelfth of the squared step. The largest of n Gaussian weights is about sqrt(2 ln n) sigma.
double allowed_error(const Format& format) {
  if (format.block_weights == 1) {
    const int mantissa_bits = format.id == "F64"       ? 52
                              : format.id == "F32"     ? 23
                              : format.id == "F16"     ? 10
                              : format.id == "BF16"    ? 7
                              : format.id == "F8_E4M3" ? 3
                                                       : 2;
    return std::exp2(-2 * mantissa_bits - 2);
  }
  const bool four_bit_float = format.id.starts_with("IQ4") || format.id == "MXFP4" || format.id == "NVFP4";
  const int bits = four_bit_float ? 4 : format.integer.bits;
  const double largest = std::sqrt(2.0 * std::log(static_cast<double>(format.integer.group)));
  const double step = 2.0 * largest / (std::exp2(bits) - 1.0);
  const double slack = format.id == "MXFP4" ? 1.6 : 1.15;  // a power of two as scale is up to sqrt(2) away from the best
  return slack * step * step / 12.0;
}

TEST_P(EveryFormat, EncodesGaussianWeightsWithinTheErrorThatItsBitsAllow) {
  const Format& format = GetParam();
  if (format.encode == nullptr || format.id.starts_with("TQ")) return;  // TQ is for weights that are ternary already
  std::mt19937 random(test_seed());
  std::normal_distribution<float> normal;
  std::vector<float> weights(256 * 64);
  for (float& weight : weights) weight = normal(random);
  const std::vector<float> back = decoded(format, encoded(format, weights), weights.size());
  const double error = squared_error(weights, back) / static_cast<double>(weights.size());
  EXPECT_LE(error, allowed_error(format)) << "seed " << test_seed();
}

// Rounding to nearest in the structure of a K-quant, step by step and without any search: each group from its extremes, its
// scale (and minimum) then rounded to an integer of `scale_bits` under the largest of the block.
std::vector<float> rounded_to_nearest(const Format& format, const std::vector<float>& weights) {
  const bool affine = format.id == "Q2_K" || format.id == "Q4_K" || format.id == "Q5_K";
  const int scale_bits = format.id == "Q2_K" ? 4 : format.id == "Q6_K" ? 8 : 6;
  const double top_integer = affine ? std::exp2(scale_bits) - 1 : std::exp2(scale_bits - 1) - 1;
  const double codes = std::exp2(format.integer.bits);
  const size_t group = static_cast<size_t>(format.integer.group);
  std::vector<float> back(weights.size());
  for (size_t block = 0; block < weights.size(); block += 256) {
    std::vector<double> scales, minimums;
    for (size_t start = block; start < block + 256; start += group) {
      const auto [low, high] = std::minmax_element(weights.begin() + static_cast<int64_t>(start), weights.begin() + static_cast<int64_t>(start + group));
      minimums.push_back(affine ? -std::min(0.0f, *low) : 0.0);
      scales.push_back(affine ? (*high + minimums.back()) / (codes - 1) : std::max<double>(*high, -*low) / (codes / 2 - 1));
    }
    const double scale_unit = *std::max_element(scales.begin(), scales.end()) / top_integer;
    const double minimum_unit = *std::max_element(minimums.begin(), minimums.end()) / top_integer;
    for (size_t i = block; i < block + 256; ++i) {
      const size_t g = (i - block) / group;
      const double scale = std::round(scales[g] / scale_unit) * scale_unit;
      const double minimum = affine ? std::round(minimums[g] / minimum_unit) * minimum_unit : 0.0;
      const double code = std::round((weights[i] + minimum) / scale);
      back[i] = static_cast<float>(scale * (affine ? std::clamp(code, 0.0, codes - 1) : std::clamp(code, -codes / 2, codes / 2 - 1)) - minimum);
    }
  }
  return back;
}

TEST_P(EveryFormat, KQuantsSearchTheirScalesMuchBetterThanRoundingToNearest) {
  const Format& format = GetParam();
  if (!format.id.ends_with("_K") || format.id == "Q8_K") return;
  std::mt19937 random(test_seed());
  std::normal_distribution<float> normal;
  std::exponential_distribution<float> exponential;
  for (const bool laplace : {false, true}) {
    std::vector<float> weights(256 * 128);
    for (float& weight : weights) weight = 0.02f * (laplace ? exponential(random) * (random() % 2 == 0 ? 1.0f : -1.0f) : normal(random));
    const double ours = squared_error(weights, decoded(format, encoded(format, weights), weights.size()));
    const double naive = squared_error(weights, rounded_to_nearest(format, weights));
    RecordProperty(laplace ? "laplace" : "gaussian", fmt::format("{:.3f}", ours / naive));
    EXPECT_LT(ours, 0.88 * naive) << (laplace ? "laplace" : "gaussian") << " ratio " << ours / naive << ", seed " << test_seed();
  }
}

TEST_P(EveryFormat, EncodesZerosConstantsAndOutliersWithoutSurprises) {
  const Format& format = GetParam();
  if (format.encode == nullptr) return;
  const std::vector<float> zeros(256, 0.0f);
  for (const float weight : decoded(format, encoded(format, zeros), 256)) ASSERT_EQ(weight, 0.0f);

  const float top = 6.0f;  // exact in every FP4 scale too
  const std::vector<float> constant(256, top);
  for (const float weight : decoded(format, encoded(format, constant), 256)) ASSERT_NEAR(weight, top, 0.04f * top);

  std::vector<float> outlier(256, 0.0f);
  outlier[77] = -top;
  const std::vector<float> back = decoded(format, encoded(format, outlier), 256);
  for (size_t i = 0; i < back.size(); ++i) ASSERT_NEAR(back[i], outlier[i], 0.04f * top) << i;
}

TEST_P(EveryFormat, EncodesNonFiniteTinyAndHugeWeightsWithoutATrap) {
  const Format& format = GetParam();
  if (format.encode == nullptr) return;
  const float inf = std::numeric_limits<float>::infinity();
  for (const float special : {std::nanf(""), inf, -inf, 1e-45f, -1e-40f, 3e38f, -3e38f}) {
    for (const bool all : {false, true}) {
      std::vector<float> weights(256, all ? special : 0.01f);
      weights[131] = special;
      const std::vector<std::byte> bytes = encoded(format, weights);
      decoded(format, bytes, 256);
      const std::vector<float> importance(256, 1.0f);
      encoded(format, weights, importance.data());
    }
  }
}

TEST_P(EveryFormat, ImportanceMovesErrorToTheWeightsThatDoNotMatter) {
  const Format& format = GetParam();
  if (format.encode == nullptr || format.integer.bits == 0 || format.integer.bits == 8) return;
  if (format.id.starts_with("TQ") || format.id == "MXFP4" || format.id == "NVFP4") return;  // these ignore it, and say so
  std::mt19937 random(test_seed());
  std::normal_distribution<float> normal;
  std::vector<float> weights(256 * 64);
  std::vector<float> importance(weights.size());
  for (float& weight : weights) weight = normal(random);
  for (float& value : importance) value = random() % 8 == 0 ? 20.0f : 0.1f;
  const auto error = [&](const std::vector<std::byte>& bytes) {
    const std::vector<float> back = decoded(format, bytes, weights.size());
    double sum = 0.0;
    for (size_t i = 0; i < weights.size(); ++i) sum += importance[i] * std::pow(static_cast<double>(back[i]) - weights[i], 2);
    return sum;
  };
  EXPECT_LT(error(encoded(format, weights, importance.data())), 0.95 * error(encoded(format, weights))) << "seed " << test_seed();
  // All importances zero: nothing matters, but the bytes must still decode to finite weights.
  const std::vector<float> none(weights.size(), 0.0f);
  for (const float weight : decoded(format, encoded(format, weights, none.data()), weights.size())) ASSERT_TRUE(std::isfinite(weight));
}

TEST(FormatTable, FindsRowsByIdGgufTypeAndSafetensorsName) {
  EXPECT_EQ(find_format("Q4_1")->gguf_type, 3);
  EXPECT_EQ(format_of_gguf_type(14)->id, "Q6_K");
  EXPECT_EQ(format_of_safetensors("BF16")->id, "BF16");
  EXPECT_EQ(format_of_safetensors("BOOL")->block_bytes, 1);
  EXPECT_EQ(find_format("Q9_9"), nullptr);
  for (const uint32_t type : {4u, 5u, 31u, 32u, 33u, 36u, 37u, 38u, 255u, 0xffffffffu}) EXPECT_EQ(format_of_gguf_type(type), nullptr) << type;
  EXPECT_EQ(format_of_safetensors(""), nullptr);
  std::set<std::string_view> ids;
  for (const Format& format : format_table()) EXPECT_TRUE(ids.insert(format.id).second) << format.id;
}

TEST(FormatTable, AnUnknownIdGetsTheNearestOne) {
  try {
    format_at("Q4_k");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::unsupported);
    EXPECT_NE(std::string(error.what()).find("did you mean \"Q4_"), std::string::npos) << error.what();
  }
}

TEST(FormatTable, SizesRefusePartBlocksAndWrapping) {
  EXPECT_EQ(bytes_of(format_at("Q4_K"), 512), 288u);
  EXPECT_THROW(bytes_of(format_at("Q4_K"), 511), Error);
  EXPECT_THROW(bytes_of(format_at("F32"), uint64_t{1} << 62), Error);
}

}  // namespace
}  // namespace frugal::formats
