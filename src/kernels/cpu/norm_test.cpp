#include "kernels/cpu/norm.h"

#include "base/error.h"
#include "kernels/cpu/kernel_test_support.h"
#include "kernels/cpu/rope.h"

namespace frugal::kernels {
namespace {

class NormTest : public KernelTest {};

TEST_P(NormTest, NormsEqualTheDefinitionInDouble) {
  for (const int64_t columns : {1, 7, 8, 64, 100, 576, 1537}) {
    const int64_t rows = rng_.between(1, 6), stride = columns + 2, out_stride = columns + 1;
    Guarded<float> x(rows * stride), weight(columns), bias(columns);
    fill_normal(x, rng_, 3);
    fill_normal(weight, rng_);
    fill_normal(bias, rng_);
    for (const bool rms : {true, false}) {
      for (const float offset : {0.0f, 1.0f}) {
        Guarded<float> out(rows * out_stride, -7.0f);
        const NormRows r{x.data(), stride, out.data(), out_stride, rows, columns};
        if (rms) {
          rms_norm(r, weight.data(), {1e-6f, offset});
        } else {
          layer_norm(r, weight.data(), bias.data(), {1e-6f, offset});
        }
        ASSERT_TRUE(out.intact());
        for (int64_t row = 0; row < rows; ++row) {
          double mean = 0, variance = 0;
          for (int64_t c = 0; c < columns && !rms; ++c) mean += static_cast<double>(x[row * stride + c]) / static_cast<double>(columns);
          for (int64_t c = 0; c < columns; ++c) variance += std::pow(x[row * stride + c] - mean, 2) / static_cast<double>(columns);
          for (int64_t c = 0; c < columns; ++c) {
            double expected = (x[row * stride + c] - mean) / std::sqrt(variance + 1e-6) * (static_cast<double>(weight[c]) + offset);
            if (!rms) expected += bias[c];
            // A single column has variance 0, so layer_norm divides rounding errors by sqrt(eps).
            ASSERT_NEAR(out[row * out_stride + c], expected, 3e-6 * (1 + std::abs(expected)) * (columns == 1 ? 1000 : 1));
          }
          for (int64_t c = columns; c < out_stride; ++c) ASSERT_EQ(out[row * out_stride + c], -7.0f);
        }
      }
    }
  }
}

TEST_P(NormTest, GradientsOfRmsNormEqualTheDefinitionInDouble) {
  for (const int64_t columns : {1, 7, 64, 100, 577}) {
    const int64_t rows = rng_.between(1, 70);
    Guarded<float> x(rows * columns), g(rows * columns), weight(columns), by_x(rows * columns), by_weight(columns, 0.5f);
    fill_normal(x, rng_, 3);
    fill_normal(g, rng_);
    fill_normal(weight, rng_);
    rms_norm_backward({x.data(), g.data(), by_x.data(), by_weight.data(), rows, columns}, weight.data(), {1e-6f, 1});
    ASSERT_TRUE(by_x.intact() && by_weight.intact());
    std::vector<double> sums(static_cast<size_t>(columns), 0.5), sizes(static_cast<size_t>(columns), 0.5);
    for (int64_t row = 0; row < rows; ++row) {
      const auto at = [&](const Guarded<float>& values, int64_t c) { return static_cast<double>(values[row * columns + c]); };
      double squares = 1e-6, dot = 0, size = 0;
      for (int64_t c = 0; c < columns; ++c) {
        squares += at(x, c) * at(x, c) / static_cast<double>(columns);
        dot += at(g, c) * (weight[c] + 1.0) * at(x, c) / static_cast<double>(columns);
        size += std::abs(at(g, c) * (weight[c] + 1.0) * at(x, c)) / static_cast<double>(columns);
      }
      const double r = 1 / std::sqrt(squares);
      for (int64_t c = 0; c < columns; ++c) {
        const double first = r * at(g, c) * (weight[c] + 1.0), second = at(x, c) * r * r * r * dot;
        // The two cancel where a row has one column: the bar is for their size.
        ASSERT_NEAR(by_x[row * columns + c], first - second, 3e-6 * (1e-3 + std::abs(first) + std::abs(at(x, c)) * r * r * r * size));
        sums[static_cast<size_t>(c)] += at(g, c) * at(x, c) * r;
        sizes[static_cast<size_t>(c)] += std::abs(at(g, c) * at(x, c) * r);
      }
    }
    for (int64_t c = 0; c < columns; ++c) ASSERT_NEAR(by_weight[c], sums[static_cast<size_t>(c)], 3e-6 * sizes[static_cast<size_t>(c)]);
  }
}

TEST_P(NormTest, InPlaceAndWithoutWeight) {
  std::vector<float> x(50), out(50);
  fill_normal(x, rng_);
  rms_norm({x.data(), 0, out.data(), 0, 1, 50}, nullptr, {});
  rms_norm({x.data(), 0, x.data(), 0, 1, 50}, nullptr, {});
  EXPECT_EQ(x, out);
  EXPECT_THROW(rms_norm({x.data(), 10, out.data(), 0, 1, 50}, nullptr, {}), Error);
}

TEST_P(NormTest, RopeRotatesPairsByTheTablesAngles) {
  for (const RopePairs pairs : {RopePairs::halves, RopePairs::interleaved}) {
    for (const int64_t rotary : {2, 20, 64}) {
      const int64_t rows = 5, heads = 3, head_dim = 66, stride = heads * head_dim + 1, table_rows = 11;
      Guarded<float> x(rows * stride), cos(table_rows * rotary / 2), sin(table_rows * rotary / 2);
      fill_normal(x, rng_);
      for (int64_t i = 0; i < cos.size(); ++i) {
        const double angle = rng_.uniform(0, 6);
        cos[i] = static_cast<float>(std::cos(angle));
        sin[i] = static_cast<float>(std::sin(angle));
      }
      const Guarded<float> before = x;
      std::vector<int64_t> positions;
      for (int64_t r = 0; r < rows; ++r) positions.push_back(rng_.between(0, table_rows - 1));
      rope(x.data(), rows, stride, positions.data(), cos.data(), sin.data(), table_rows, {heads, head_dim, rotary, pairs});
      ASSERT_TRUE(x.intact());
      Guarded<float> expected = before;
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t h = 0; h < heads; ++h) {
          for (int64_t i = 0; i < rotary / 2; ++i) {
            const int64_t first = r * stride + h * head_dim + (pairs == RopePairs::halves ? i : 2 * i);
            const int64_t second = first + (pairs == RopePairs::halves ? rotary / 2 : 1);
            const double c = cos[positions[static_cast<size_t>(r)] * rotary / 2 + i], s = sin[positions[static_cast<size_t>(r)] * rotary / 2 + i];
            expected[first] = static_cast<float>(before[first] * c - before[second] * s);
            expected[second] = static_cast<float>(before[second] * c + before[first] * s);
          }
        }
      }
      for (int64_t i = 0; i < x.size(); ++i) ASSERT_NEAR(x[i], expected[i], 1e-6);
      positions[0] = table_rows;
      EXPECT_THROW(rope(x.data(), rows, stride, positions.data(), cos.data(), sin.data(), table_rows, {heads, head_dim, rotary, pairs}), Error);
    }
  }
}

FRUGAL_FOR_EACH_SET(NormTest);

}  // namespace
}  // namespace frugal::kernels
