#include "kernels/cpu/packed_matrix.h"

#include "base/error.h"
#include "kernels/cpu/half.h"
#include "kernels/cpu/kernel_test_support.h"

namespace frugal::kernels {
namespace {

enum class Scales { f16_symmetric, f16_minimums, f32_minimums, super };

// A matrix with its codes and its values in double, the oracle.
struct Source {
  int64_t rows, columns, group, groups;
  int bits;
  std::vector<uint8_t> codes;
  std::vector<float> scales, minimums;

  Source(int64_t r, int64_t c, int b, int64_t g, Scales kind, Rng& rng) : rows(r), columns(c), group(g), bits(b) {
    groups = group >= columns ? 1 : (columns + group - 1) / group;
    codes.resize(static_cast<size_t>(rows * columns));
    for (uint8_t& code : codes) code = static_cast<uint8_t>(rng.below(uint64_t{1} << bits));
    const auto half = [](double x) { return half_to_float(float_to_half(static_cast<float>(x))); };
    for (int64_t i = 0; i < rows; ++i) {
      const float base = half(rng.uniform(0.001, 0.01)), base_minimum = half(rng.uniform(0.001, 0.01));
      for (int64_t j = 0; j < groups; ++j) {
        float scale = half(rng.normal() * 0.01), minimum = half(rng.normal() * 0.1);
        if (kind == Scales::f32_minimums) scale = static_cast<float>(rng.normal() * 0.01), minimum = static_cast<float>(rng.normal() * 0.1);
        if (kind == Scales::super) {
          scale = base * static_cast<float>(rng.between(0, 63));
          minimum = -base_minimum * static_cast<float>(rng.between(0, 63));
        }
        if (kind == Scales::f16_symmetric) minimum = -static_cast<float>(1 << (bits - 1)) * scale;
        scales.push_back(scale);
        minimums.push_back(minimum);
      }
    }
  }
  double weight(int64_t r, int64_t c) const {
    const auto g = static_cast<size_t>(r * groups + c / group);
    return static_cast<double>(scales[g]) * codes[static_cast<size_t>(r * columns + c)] + static_cast<double>(minimums[g]);
  }
  IntegerRows rows_of() const {
    IntegerRows s;
    s.rows = rows;
    s.columns = columns;
    s.bits = bits;
    s.group = group;
    s.read_row = [this](int64_t row, uint8_t* c, float* sc, float* m) {
      std::memcpy(c, codes.data() + row * columns, static_cast<size_t>(columns));
      std::memcpy(sc, scales.data() + row * groups, static_cast<size_t>(groups) * 4);
      std::memcpy(m, minimums.data() + row * groups, static_cast<size_t>(groups) * 4);
    };
    return s;
  }
};

class PackedMatrixTest : public KernelTest {
 protected:
  // Against exact integers: the only error left is fp32 rounding of the sums.
  void expect_product(const Source& source, int64_t tokens, const QuantizeOptions& options = {}) {
    SCOPED_TRACE(fmt::format("{} x {}, {} bits, group {}, {} tokens", source.rows, source.columns, source.bits, source.group, tokens));
    const PackedMatrix matrix(source.rows_of());
    const int64_t stride = source.columns + 3;
    Guarded<float> x(tokens * stride);
    fill_normal(x, rng_);
    QuantizedActivations activations;
    activations.quantize(x.data(), tokens, source.columns, stride, options);
    const int64_t out_stride = source.rows + 5;
    Guarded<float> out(tokens * out_stride, -77.0f);
    matmul_packed(matrix, activations, out.data(), out_stride);
    EXPECT_TRUE(out.intact());
    std::vector<float> row(static_cast<size_t>(source.columns));
    for (int64_t t = 0; t < tokens; ++t) {
      activations.decode_row(t, row.data());
      for (int64_t r = 0; r < source.rows; ++r) {
        double sum = 0, magnitude = 0;
        for (int64_t c = 0; c < source.columns; ++c) {
          const double product = source.weight(r, c) * static_cast<double>(row[static_cast<size_t>(c)]);
          sum += product;
          magnitude += std::abs(product) +
                       std::abs(static_cast<double>(row[static_cast<size_t>(c)]) * source.minimums[static_cast<size_t>(r * source.groups + c / source.group)]);
        }
        ASSERT_NEAR(out[t * out_stride + r], sum, 1e-6 * magnitude + 1e-9) << "row " << r << " token " << t;
      }
      for (int64_t r = source.rows; r < out_stride; ++r) ASSERT_EQ(out[t * out_stride + r], -77.0f);
    }
  }
};

TEST_P(PackedMatrixTest, ProductsEqualExactSumsForEveryWidthGroupAndScaleForm) {
  for (const int bits : {2, 3, 4, 5, 6, 8}) {
    for (const Scales kind : {Scales::f16_symmetric, Scales::f16_minimums, Scales::f32_minimums, Scales::super}) {
      for (const int64_t group : {16, 32, 96, 10000}) {
        const Source source(rng_.between(1, 40), rng_.between(1, 400), bits, group, kind, rng_);
        expect_product(source, rng_.between(1, 9));
      }
    }
  }
}

TEST_P(PackedMatrixTest, ProductsEqualExactSumsForModelShapes) {
  expect_product(Source(192, 576, 4, 32, Scales::f16_minimums, rng_), slow() ? 2 : 17);
  expect_product(Source(48, 1536, 4, 128, Scales::f16_symmetric, rng_), slow() ? 2 : 17);
  expect_product(Source(33, 2048, 6, 16, Scales::super, rng_), 5);
  expect_product(Source(48, 576, 8, 32, Scales::f16_symmetric, rng_), 9);
}

// From 16 tokens on, 768 columns at a time are unpacked for all of them.
TEST_P(PackedMatrixTest, ProductsOfManyTokensEqualExactSums) {
  for (const int bits : {2, 3, 4, 5, 6, 8}) {
    for (const Scales kind : {Scales::f16_symmetric, Scales::super}) {
      for (const int64_t group : {16, 32, 96}) {
        expect_product(Source(rng_.between(1, 40), rng_.between(700, slow() ? 900 : 1700), bits, group, kind, rng_), rng_.between(16, slow() ? 18 : 40));
      }
    }
  }
}

TEST_P(PackedMatrixTest, ActivationScalesPerTokenAndStaticMultiplyAlike) {
  expect_product(Source(20, 100, 4, 32, Scales::f16_minimums, rng_), 3, {ActivationScale::per_token, 0});
  expect_product(Source(20, 100, 8, 16, Scales::f16_symmetric, rng_), 3, {ActivationScale::per_tensor, 0.02f});
}

TEST_P(PackedMatrixTest, LargestCodesDoNotSaturate) {
  for (const int bits : {2, 3, 4, 5, 6, 8}) {
    for (const uint8_t code : {0, (1 << bits) - 1}) {
      for (const float sign : {1.0f, -1.0f}) {
        Source source(16, 64, bits, 32, Scales::f16_symmetric, rng_);
        for (uint8_t& c : source.codes) c = code;
        const PackedMatrix matrix(source.rows_of());
        const std::vector<float> x(64, sign);
        QuantizedActivations activations;
        activations.quantize(x.data(), 1, 64, 64);
        std::vector<float> out(16);
        matmul_packed(matrix, activations, out.data(), 16);
        for (int64_t r = 0; r < 16; ++r) {
          const double expected = 32.0 * sign * (source.weight(r, 0) + source.weight(r, 32));
          ASSERT_NEAR(out[static_cast<size_t>(r)], expected, 1e-4 * std::abs(expected) + 1e-5) << bits << " bits, code " << int{code};
        }
      }
    }
  }
}

TEST_P(PackedMatrixTest, ATokensResultDoesNotDependOnItsBatchNorOnTheTeam) {
  const Source source(70, 848, 4, 32, Scales::f16_minimums, rng_), other(35, 848, 6, 16, Scales::super, rng_);
  const PackedMatrix matrix(source.rows_of()), second(other.rows_of());
  constexpr int64_t kTokens = 19;
  std::vector<float> x(kTokens * 848);
  fill_normal(x, rng_);
  QuantizedActivations all, one;
  all.quantize(x.data(), kTokens, 848, 848);
  Guarded<float> together(kTokens * 70), together_second(kTokens * 35);
  const std::vector<PackedProduct> both{{&matrix, together.data(), 70}, {&second, together_second.data(), 35}};
  {
    const TeamSize team(3);
    matmul_packed(both, all);
  }
  EXPECT_TRUE(together.intact() && together_second.intact());
  for (int64_t t = 0; t < kTokens; ++t) {
    const TeamSize team(1);
    std::vector<float> alone(70), alone_second(35);
    one.quantize(x.data() + t * 848, 1, 848, 848);
    matmul_packed(matrix, one, alone.data(), 70);
    matmul_packed(second, one, alone_second.data(), 35);
    ASSERT_EQ(std::memcmp(alone.data(), together.data() + t * 70, 70 * 4), 0) << t;
    ASSERT_EQ(std::memcmp(alone_second.data(), together_second.data() + t * 35, 35 * 4), 0) << t;
  }
}

TEST_P(PackedMatrixTest, RowsDecodeExactly) {
  for (const int bits : {2, 3, 4, 5, 6, 8}) {
    for (const Scales kind : {Scales::f16_symmetric, Scales::f16_minimums, Scales::f32_minimums, Scales::super}) {
      const Source source(19, 200, bits, 32, kind, rng_);
      const PackedMatrix matrix(source.rows_of());
      std::vector<float> row(200);
      for (int64_t r = 0; r < source.rows; ++r) {
        matrix.decode_row(r, row.data());
        for (int64_t c = 0; c < 200; ++c) {
          const auto g = static_cast<size_t>(r * source.groups + c / 32);
          const float expected = source.scales[g] * static_cast<float>(source.codes[static_cast<size_t>(r * 200 + c)]) + source.minimums[g];
          ASSERT_EQ(row[static_cast<size_t>(c)], expected);
        }
      }
    }
  }
}

TEST_P(PackedMatrixTest, ScalesTakeTheSmallestExactForm) {
  const auto bits_per_weight = [&](Scales kind, int bits, int64_t group) {
    const Source source(64, 512, bits, group, kind, rng_);
    return 8.0 * static_cast<double>(PackedMatrix(source.rows_of()).bytes() - 64) / (64 * 512);
  };
  EXPECT_DOUBLE_EQ(bits_per_weight(Scales::f16_symmetric, 4, 32), 4.5);  // Q4_0
  EXPECT_DOUBLE_EQ(bits_per_weight(Scales::f16_minimums, 4, 32), 5.0);   // Q4_1
  EXPECT_DOUBLE_EQ(bits_per_weight(Scales::super, 4, 32), 4.75);         // Q4_K: 4.5
  EXPECT_DOUBLE_EQ(bits_per_weight(Scales::f32_minimums, 4, 32), 6.0);
  EXPECT_DOUBLE_EQ(bits_per_weight(Scales::f16_symmetric, 8, 32), 8.5);  // Q8_0
}

TEST_P(PackedMatrixTest, ALaterRowThatNeedsAWiderFormIsFound) {
  Source source(40, 64, 4, 32, Scales::f16_symmetric, rng_);
  source.scales[70] = 0.1f;  // not a half
  source.minimums[75] = 0.3f;
  const PackedMatrix matrix(source.rows_of());
  EXPECT_EQ(matrix.layout().scale_form, ScaleForm::fp32);
  EXPECT_TRUE(matrix.layout().has_minimums);
  std::vector<float> row(64);
  matrix.decode_row(35, row.data());
  EXPECT_EQ(row[0], 0.1f * static_cast<float>(source.codes[35 * 64]) + source.minimums[70]);
}

TEST_P(PackedMatrixTest, BadSourcesAreErrors) {
  Source source(4, 64, 4, 32, Scales::f16_symmetric, rng_);
  IntegerRows rows = source.rows_of();
  rows.group = 24;
  EXPECT_FALSE(supports_packing(4, 24, 64));
  EXPECT_THROW(PackedMatrix{rows}, Error);
  rows = source.rows_of();
  rows.bits = 7;
  EXPECT_THROW(PackedMatrix{rows}, Error);
  source.codes[70] = 16;
  EXPECT_THROW(PackedMatrix{source.rows_of()}, Error);
  rows.rows = int64_t{1} << 60;
  rows.bits = 4;
  EXPECT_THROW(PackedMatrix{rows}, Error);
}

FRUGAL_FOR_EACH_SET(PackedMatrixTest);

}  // namespace
}  // namespace frugal::kernels
