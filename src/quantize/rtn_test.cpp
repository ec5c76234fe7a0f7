// Grids and rounding to nearest, against scalar loops.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "chain/grid.h"
#include "method_rows.h"
#include "quantize/quantize_table.h"

namespace frugal::quantize {
namespace {

using at::Tensor;
using testing::fresh_seed;

TEST(Rtn, RoundsToTheNearestLevelOfItsGroupForEveryShape) {
  Rng rng(fresh_seed());
  for (int trial = 0; trial < 20; ++trial) {
    const chain::GridSpec spec{.bits = static_cast<int>(rng.between(1, 8)), .group = rng.between(0, 70), .symmetric = rng.below(2) == 1};
    const int64_t rows = rng.between(1, 9), columns = rng.between(1, 150);
    SCOPED_TRACE(fmt::format("[{}, {}] bits {} group {} symmetric {}", rows, columns, spec.bits, spec.group, spec.symmetric));
    const Tensor weight = at::randn({rows, columns}) * std::exp(3 * rng.normal());
    const chain::GridCodes codes = chain::round_to_grid(weight, {}, spec);
    const Tensor decoded = codes.decode();
    EXPECT_TRUE(at::equal(chain::rounded_to_grid(weight, {}, spec), decoded));
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < columns; ++c) {
        const chain::GroupGrid grid = codes.grid(r, c / spec.width(columns));
        const double value = weight[r][c].item<double>();
        double nearest = INFINITY;
        for (int code = 0; code <= spec.max_code(); ++code) {
          nearest = std::min(nearest, std::abs(value - (code - static_cast<double>(grid.zero)) * grid.scale));
        }
        const double error = std::abs(value - decoded[r][c].item<double>());
        EXPECT_LE(error, nearest + 1e-6 * (grid.scale + std::abs(value)));
        // The extremes of a group are inside the grid, or half a step beyond it, and what rounding the scale to float16 moves
        // (a subnormal one is a multiple of 2^-24).
        EXPECT_LE(error, (spec.bits == 1 ? 1.01 : 0.51 + spec.max_code() / 2048.0) * grid.scale + spec.max_code() * 0x1p-25);
      }
    }
    const formats::GroupedWeight packed = codes.pack();
    formats::validate(packed, "packed");
    std::vector<float> row(static_cast<size_t>(columns));
    for (int64_t r = 0; r < rows; ++r) {
      formats::decode_row(packed, r, row.data());
      for (int64_t c = 0; c < columns; ++c) EXPECT_EQ(row[static_cast<size_t>(c)], decoded[r][c].item<float>());
    }
  }
}

TEST(Rtn, ASearchedRangeNeverHasALargerSquaredErrorThanTheExtremes) {
  fresh_seed();
  // Enough rows that the sum does not hang on a few outliers.
  const Tensor weight = at::randn({1000, 100}).pow(3);
  chain::GridSpec spec{.bits = 3, .group = 32};
  const auto error = [&] {
    const Tensor e = at::pad((chain::round_to_grid(weight, {}, spec).decode() - weight).square(), {0, 28});
    return e.view({1000, 4, 32}).sum(2);
  };
  const Tensor plain = error();
  spec.search = true;
  const Tensor searched = error();
  EXPECT_TRUE((searched <= plain * (1 + 1e-5) + 1e-9).all().item<bool>());
  EXPECT_LT(searched.sum().item<double>(), 0.95 * plain.sum().item<double>());
}

TEST(Rtn, ConstantEmptyAndExtremeGroupsHaveUsableGrids) {
  for (const float value : {0.0f, 1e-30f, 5.0f, -5.0f, 1e9f}) {
    const Tensor weight = at::full({1, 10}, value);
    for (const bool symmetric : {false, true}) {
      const Tensor decoded = chain::round_to_grid(weight, {}, {.bits = 4, .group = 4, .symmetric = symmetric}).decode();
      ASSERT_TRUE(decoded.isfinite().all().item<bool>());
      if (std::abs(value) < 1e6f) {
        EXPECT_NEAR(decoded[0][3].item<float>(), value, 0.07f * std::abs(value) + 1e-7f);
      }
    }
  }
  EXPECT_THROW(chain::round_to_grid(at::full({1, 4}, NAN), {}, {}), Error);
}

TEST(Rtn, EntriesThatAMaskDropsDoNotWidenARange) {
  Tensor weight = at::tensor({0.1f, -0.2f, 100.0f, 0.3f}).view({1, 4});
  const Tensor kept = weight < 1;
  const Tensor decoded = chain::round_to_grid(weight, kept, {.bits = 8}).decode();
  EXPECT_NEAR(decoded[0][3].item<float>(), 0.3f, 0.002f);
}

}  // namespace
}  // namespace frugal::quantize
