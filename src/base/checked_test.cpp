#include "base/checked.h"

#include <gtest/gtest.h>

#include <limits>

#include "base/bounded_reader.h"

namespace frugal {
namespace {

TEST(Checked, SumsProductsAndRoundUpsThatWrapAreRefused) {
  const uint64_t max = std::numeric_limits<uint64_t>::max();
  EXPECT_EQ(checked_add<uint64_t>(max - 1, 1, "size"), max);
  EXPECT_THROW(checked_add<uint64_t>(max, 1, "size"), Error);
  EXPECT_THROW(checked_mul<uint64_t>(uint64_t{1} << 33, uint64_t{1} << 31, "size"), Error);
  EXPECT_EQ(checked_round_up<uint64_t>(33, 32, "size"), 64u);
  EXPECT_THROW(checked_round_up<uint64_t>(max - 3, 32, "size"), Error);
  EXPECT_THROW(checked_round_up<uint64_t>(1, 0, "size"), Error);
}

TEST(Checked, AProductOfDimensionsRefusesNegativeAndWrappingOnes) {
  const int64_t wrap[] = {int64_t{1} << 32, int64_t{1} << 32};
  const int64_t negative[] = {4, -1};
  const int64_t zero[] = {int64_t{1} << 62, 0};
  EXPECT_THROW(checked_product(wrap, "shape"), Error);
  EXPECT_THROW(checked_product(negative, "shape"), Error);
  EXPECT_EQ(checked_product(zero, "shape"), 0u);
}

TEST(BoundedReader, NeverLeavesItsBytesAndNamesFileAndOffset) {
  const std::string bytes("\x01\x00\x00\x00\x02", 5);
  BoundedReader reader(std::as_bytes(std::span(bytes)), "model.gguf");
  EXPECT_EQ(reader.read<uint32_t>("version"), 1u);
  try {
    reader.read<uint64_t>("tensor count");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::corrupt_file);
    EXPECT_NE(std::string(error.what()).find("model.gguf: offset 4: tensor count needs 8 bytes but only 1"), std::string::npos) << error.what();
  }
  EXPECT_THROW(reader.take(std::numeric_limits<uint64_t>::max(), "text"), Error);
  EXPECT_EQ(reader.read<uint8_t>("last"), 2);
  EXPECT_TRUE(reader.at_end());
}

}  // namespace
}  // namespace frugal
