#include "kernels/cpu/float_matmul.h"

#include <bit>

#include "base/error.h"
#include "kernels/cpu/half.h"
#include "kernels/cpu/kernel_test_support.h"

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

FRUGAL_FOR_EACH_SET(FloatMatmulTest);

}  // namespace
}  // namespace frugal::kernels
