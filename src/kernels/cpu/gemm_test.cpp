#include "kernels/cpu/gemm.h"

#include "base/error.h"
#include "formats/half.h"
#include "kernels/cpu/kernel_test_support.h"

namespace frugal::kernels {
namespace {

class GemmTest : public KernelTest {};

struct Shape {
  int64_t m, n, k;
};

TEST_P(GemmTest, EqualsTheDefinitionInDoubleInEveryArrangement) {
  std::vector<Shape> shapes = {{1, 1, 1}, {6, 16, 5}, {12, 32, 7}, {13, 33, 385}, {1, 70, 40}, {50, 1, 400}};
  for (int i = 0; i < 6; ++i) shapes.push_back({rng_.between(1, 90), rng_.between(1, 90), rng_.between(1, slow() ? 60 : 900)});
  if (!slow()) shapes.push_back({5, 4200, 17});
  for (const Shape& s : shapes) {
    for (int arrangement = 0; arrangement < 8; ++arrangement) {
      const bool a_turned = arrangement & 1, b_turned = arrangement & 2, accumulate = arrangement & 4;
      const int64_t a_columns = a_turned ? s.m : s.k, b_columns = b_turned ? s.k : s.n, pad = rng_.between(0, 3);
      Guarded<float> a((a_turned ? s.k : s.m) * (a_columns + pad)), b((b_turned ? s.n : s.k) * (b_columns + pad)), c(s.m * (s.n + pad));
      fill_normal(a, rng_);
      fill_normal(b, rng_);
      fill_normal(c, rng_);
      const Guarded<float> before = c;
      const MatrixView a_view = a_turned ? MatrixView{a.data(), 1, a_columns + pad} : MatrixView{a.data(), a_columns + pad, 1};
      const MatrixView b_view = b_turned ? MatrixView{b.data(), 1, b_columns + pad} : MatrixView{b.data(), b_columns + pad, 1};
      const float alpha = arrangement == 0 ? 1.0f : 0.7f;
      gemm({s.m, s.n, s.k, a_view, b_view, c.data(), s.n + pad, alpha, accumulate});
      ASSERT_TRUE(a.intact() && b.intact() && c.intact());
      for (int64_t i = 0; i < s.m; ++i) {
        for (int64_t j = 0; j < s.n + pad; ++j) {
          const float got = c[i * (s.n + pad) + j], old = before[i * (s.n + pad) + j];
          if (j >= s.n) {
            ASSERT_EQ(got, old);
            continue;
          }
          if (s.n > 1000 && j % 37 != 0) continue;
          double want = 0, size = 0;
          for (int64_t k = 0; k < s.k; ++k) {
            const double product =
                static_cast<double>(a[i * a_view.row_stride + k * a_view.column_stride]) * b[k * b_view.row_stride + j * b_view.column_stride];
            want += product;
            size += std::abs(product);
          }
          ASSERT_NEAR(got, alpha * want + (accumulate ? old : 0), 4e-6 * (size + std::abs(old) + 1e-3))
              << s.m << " x " << s.n << " x " << s.k << " arrangement " << arrangement;
        }
      }
    }
  }
}

struct Halves {
  FloatType type;
  uint16_t (*of)(float);
  float (*value)(uint16_t);
};

// 16-bit operands, and float operands that are rounded, are the float product of the numbers that they hold, to the bit.
TEST_P(GemmTest, SixteenBitOperandsAndRoundedOnesGiveTheProductOfTheirValues) {
  for (const Halves& half :
       {Halves{FloatType::bf16, formats::float_to_bf16, formats::bf16_to_float}, Halves{FloatType::f16, formats::float_to_f16, formats::f16_to_float}}) {
    for (int arrangement = 0; arrangement < 4; ++arrangement) {
      const int64_t m = rng_.between(1, 40), n = rng_.between(1, 70), k = rng_.between(1, slow() ? 80 : 500);
      Guarded<float> a(m * k), b(k * n), want(m * n), got(m * n);
      fill_normal(a, rng_);
      fill_normal(b, rng_);
      Guarded<uint16_t> a_halves(m * k), b_halves(k * n);
      Guarded<float> a_rounded(m * k), b_rounded(k * n);
      for (int64_t i = 0; i < m * k; ++i) a_rounded[i] = half.value(a_halves[i] = half.of(a[i]));
      for (int64_t i = 0; i < k * n; ++i) b_rounded[i] = half.value(b_halves[i] = half.of(b[i]));
      const int64_t a_row = arrangement & 1 ? 1 : k, b_row = arrangement & 2 ? 1 : n;
      const auto left = [&](const void* data, FloatType type) { return MatrixView{data, a_row, a_row == 1 ? m : 1, type}; };
      const auto right = [&](const void* data, FloatType type) { return MatrixView{data, b_row, b_row == 1 ? k : 1, type}; };
      gemm({m, n, k, left(a_rounded.data(), FloatType::f32), right(b_rounded.data(), FloatType::f32), want.data(), n});
      const auto expect_equal = [&](const MatrixView& x, const MatrixView& y) {
        gemm({.m = m, .n = n, .k = k, .a = x, .b = y, .c = got.data(), .c_stride = n, .precision = half.type});
        ASSERT_TRUE(got.intact() && a_halves.intact() && b_halves.intact());
        for (int64_t i = 0; i < m * n; ++i) ASSERT_EQ(got[i], want[i]) << m << " x " << n << " x " << k << " arrangement " << arrangement;
      };
      expect_equal(left(a_halves.data(), half.type), right(b_halves.data(), half.type));
      expect_equal(left(a_halves.data(), half.type), right(b.data(), FloatType::f32));
      expect_equal(left(a.data(), FloatType::f32), right(b_halves.data(), half.type));
      expect_equal(left(a.data(), FloatType::f32), right(b.data(), FloatType::f32));
    }
  }
}

// What training relies on: a number depends neither on the threads nor on the rows beside it.
TEST_P(GemmTest, ARowIsTheSameAloneAndOnAnyNumberOfThreads) {
  const int64_t m = slow() ? 30 : 150, n = 70, k = slow() ? 50 : 800;
  std::vector<float> a(static_cast<size_t>(m * k)), b(static_cast<size_t>(k * n)), whole(static_cast<size_t>(m * n)), other(whole), row(static_cast<size_t>(n));
  fill_normal(a, rng_);
  fill_normal(b, rng_);
  const int before = team_size();
  set_team_size(1);
  gemm({m, n, k, {a.data(), k, 1}, {b.data(), n, 1}, whole.data(), n});
  for (const int threads : {2, 3}) {
    set_team_size(threads);
    gemm({m, n, k, {a.data(), k, 1}, {b.data(), n, 1}, other.data(), n});
    EXPECT_EQ(whole, other);
  }
  set_team_size(before);
  for (const int64_t i : {int64_t{0}, m / 2, m - 1}) {
    gemm({1, n, k, {a.data() + i * k, k, 1}, {b.data(), n, 1}, row.data(), n});
    EXPECT_TRUE(std::equal(row.begin(), row.end(), whole.begin() + i * n));
  }
}

TEST_P(GemmTest, NothingTimesNothing) {
  float c[4] = {1, 2, 3, 4};
  gemm({2, 2, 0, {}, {}, c, 2, 1, true});
  EXPECT_EQ(c[3], 4);
  gemm({2, 2, 0, {}, {}, c, 2});
  EXPECT_EQ(c[0] + c[3], 0);
  gemm({0, 2, 3, {}, {}, nullptr, 2});
  EXPECT_THROW(gemm({2, 2, -1, {}, {}, c, 2}), Error);
  EXPECT_THROW(gemm({2, 2, 1, {}, {}, c, 1}), Error);
}

FRUGAL_FOR_EACH_SET(GemmTest);

}  // namespace
}  // namespace frugal::kernels
