#include "base/metadata.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace frugal {
namespace {

TEST(Metadata, IntegersOfEitherSignAreRangeChecked) {
  Metadata metadata("m.gguf");
  metadata.set("u", uint64_t{7});
  metadata.set("i", int64_t{-7});
  metadata.set("huge", UINT64_MAX);
  metadata.set("text", std::string("7"));
  EXPECT_EQ(metadata.integer("u", 0, 10), 7);
  EXPECT_EQ(metadata.integer("i", -10, 10), -7);
  EXPECT_EQ(metadata.integer_or("absent", 3, 0, 10), 3);
  EXPECT_THROW(metadata.integer("i", 0, 10), Error);
  EXPECT_THROW(metadata.integer("huge", 0, INT64_MAX), Error);
  EXPECT_THROW(metadata.integer("text", 0, 10), Error);
  EXPECT_THROW(metadata.text("u"), Error);
  EXPECT_THROW(metadata.integers("u"), Error);
}

TEST(Metadata, ShowsLongArraysShortened) {
  EXPECT_EQ(to_string(MetadataValue(std::vector<int64_t>{1, 2, 3}), 2), "[1, 2, ... 3 items]");
  EXPECT_EQ(to_string(MetadataValue(true)), "true");
}

}  // namespace
}  // namespace frugal
