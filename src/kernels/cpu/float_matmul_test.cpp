#include "kernels/cpu/float_matmul.h"

#include <bit>

#include "base/error.h"
#include "kernels/cpu/half.h"
#include "kernels/cpu/kernel_test_support.h"
#include "kernels/cpu/sparse_matmul.h"

namespace frugal::kernels {
namespace {

class FloatMatmulTest : public KernelTest {};

struct Weight {
  Guarded<float> f32;
  Guarded<uint16_t> f16, bf16;
  int64_t rows, columns, stride;
  Weight(int64_t r, int64_t c, Rng& rng) : f32(r * (c + 1)), f16(r * (c + 1)), bf16(r * (c + 1)), rows(r), columns(c), stride(c + 1) {
    for (int64_t i = 0; i < f32.size(); ++i) {
      // Values that all three types hold exactly.
      f32[i] = std::ldexp(static_cast<float>(rng.between(-128, 128)), -9);
      f16[i] = float_to_half(f32[i]);
      bf16[i] = static_cast<uint16_t>(std::bit_cast<uint32_t>(f32[i]) >> 16);
    }
  }
  FloatMatrix matrix(FloatType type) const {
    const void* data = type == FloatType::f32 ? static_cast<const void*>(f32.data()) : type == FloatType::f16 ? f16.data() : bf16.data();
    return {data, type, rows, columns, stride};
  }
};

TEST_P(FloatMatmulTest, ProductsEqualDoubleSumsForEveryType) {
  for (const int64_t columns : {1, 15, 16, 33, 576}) {
    const Weight weight(rng_.between(1, 70), columns, rng_);
    const int64_t tokens = rng_.between(1, 40), x_stride = columns + 2, out_stride = weight.rows + 1;
    Guarded<float> x(tokens * x_stride);
    fill_normal(x, rng_);
    for (const FloatType type : {FloatType::f32, FloatType::f16, FloatType::bf16}) {
      for (const bool accumulate : {false, true}) {
        Guarded<float> out(tokens * out_stride, 3.0f);
        matmul_float(weight.matrix(type), {x.data(), x_stride, tokens, out.data(), out_stride, accumulate});
        ASSERT_TRUE(out.intact());
        for (int64_t t = 0; t < tokens; ++t) {
          for (int64_t r = 0; r < weight.rows; ++r) {
            double sum = accumulate ? 3 : 0;
            for (int64_t c = 0; c < columns; ++c) sum += static_cast<double>(x[t * x_stride + c]) * weight.f32[r * weight.stride + c];
            ASSERT_NEAR(out[t * out_stride + r], sum, 2e-6 * std::sqrt(static_cast<double>(columns)) + 1e-6) << columns;
          }
          ASSERT_EQ(out[t * out_stride + weight.rows], 3.0f);
        }
      }
    }
  }
}

TEST_P(FloatMatmulTest, ATokensResultDoesNotDependOnItsBatchNorOnTheTeam) {
  const Weight weight(67, 203, rng_);
  constexpr int64_t kTokens = 38;
  std::vector<float> x(kTokens * 203), together(kTokens * 67), alone(67);
  fill_normal(x, rng_);
  for (const FloatType type : {FloatType::f32, FloatType::f16, FloatType::bf16}) {
    {
      const TeamSize team(3);
      matmul_float(weight.matrix(type), {x.data(), 0, kTokens, together.data(), 0});
    }
    const TeamSize team(1);
    for (int64_t t = 0; t < kTokens; ++t) {
      matmul_float(weight.matrix(type), {x.data() + t * 203, 0, 1, alone.data(), 0});
      ASSERT_EQ(std::memcmp(alone.data(), together.data() + t * 67, 67 * 4), 0) << t;
    }
  }
}

TEST_P(FloatMatmulTest, SparseProductsEqualDenseOnesToTheBit) {
  for (const int64_t columns : {1, 8, 37, 576}) {
    const int64_t rows = rng_.between(1, 70), tokens = rng_.between(1, 6), mask_bytes = (columns + 7) / 8;
    std::vector<float> dense(static_cast<size_t>(rows * columns), 0.0f);
    std::vector<uint8_t> mask(static_cast<size_t>(rows * mask_bytes), 0);
    std::vector<int64_t> starts{0};
    std::vector<uint16_t> values;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < columns; ++c) {
        if (rng_.uniform() < 0.5) continue;
        values.push_back(float_to_half(static_cast<float>(rng_.normal())));
        dense[static_cast<size_t>(r * columns + c)] = half_to_float(values.back());
        mask[static_cast<size_t>(r * mask_bytes + c / 8)] |= static_cast<uint8_t>(1 << (c % 8));
      }
      starts.push_back(static_cast<int64_t>(values.size()));
    }
    std::vector<float> x(static_cast<size_t>(tokens * columns)), expected(static_cast<size_t>(tokens * rows)), out(expected.size());
    fill_normal(x, rng_);
    matmul_float({dense.data(), FloatType::f32, rows, columns, 0}, {x.data(), 0, tokens, expected.data(), 0});
    const SparseMatrix sparse{rows, columns, mask.data(), starts.data(), values.data(), FloatType::f16};
    matmul_sparse(sparse, {x.data(), 0, tokens, out.data(), 0});
    ASSERT_EQ(out, expected);
    ++starts.back();
    EXPECT_THROW(matmul_sparse(sparse, {x.data(), 0, tokens, out.data(), 0}), Error);
  }
}

FRUGAL_FOR_EACH_SET(FloatMatmulTest);

}  // namespace
}  // namespace frugal::kernels
