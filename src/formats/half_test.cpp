#include "formats/half.h"

#include <cmath>

#include "formats/golden_test.h"

namespace frugal::formats {
namespace {

bool same_number(float a, float b) { return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b) || (std::isnan(a) && std::isnan(b)); }

template <typename Bits>
void expect_every_pattern(const std::string& name, float (*decode)(Bits)) {
  const auto expected = formats_golden().read<float>("number/" + name + ".decoded");
  ASSERT_EQ(expected.size(), size_t{1} << (8 * sizeof(Bits)));
  for (size_t i = 0; i < expected.size(); ++i) ASSERT_TRUE(same_number(decode(static_cast<Bits>(i)), expected[i])) << name << " " << i;
}

template <typename Bits>
void expect_every_rounding(const std::string& name, Bits (*encode)(float), float (*decode)(Bits)) {
  const auto floats = formats_golden().read<float>("number/" + name + ".floats");
  const auto expected = formats_golden().read<Bits>("number/" + name + ".encoded");
  ASSERT_EQ(floats.size(), expected.size());
  for (size_t i = 0; i < floats.size(); ++i) {
    const Bits bits = encode(floats[i]);
    ASSERT_TRUE(bits == expected[i] || (std::isnan(decode(bits)) && std::isnan(decode(expected[i]))))
        << name << " of " << floats[i] << ": " << int(bits) << " instead of " << int(expected[i]);
  }
}

TEST(Half, DecodesEveryPatternAsNumpyAndTorchDo) {
  expect_every_pattern<uint16_t>("f16", f16_to_float);
  expect_every_pattern<uint16_t>("bf16", bf16_to_float);
  expect_every_pattern<uint8_t>("f8e4m3", f8e4m3_to_float);
  expect_every_pattern<uint8_t>("f8e5m2", f8e5m2_to_float);
}

TEST(Half, RoundsAtAndAroundEveryBoundaryAsNumpyAndTorchDo) {
  expect_every_rounding<uint16_t>("f16", float_to_f16, f16_to_float);
  expect_every_rounding<uint16_t>("bf16", float_to_bf16, bf16_to_float);
  expect_every_rounding<uint8_t>("f8e4m3", float_to_f8e4m3, f8e4m3_to_float);
  expect_every_rounding<uint8_t>("f8e5m2", float_to_f8e5m2, f8e5m2_to_float);
}

}  // namespace
}  // namespace frugal::formats
