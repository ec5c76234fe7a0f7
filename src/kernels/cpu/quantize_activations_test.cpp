#include "kernels/cpu/quantize_activations.h"

#include "base/error.h"
#include "kernels/cpu/kernel_test_support.h"

namespace frugal::kernels {
namespace {

class QuantizeActivationsTest : public KernelTest {};

// The definition of the header, in the plainest code.
int8_t code_of(float x, float inverse) {
  const float product = x * inverse;
  const double rounded = std::nearbyint(static_cast<double>(product));
  return static_cast<int8_t>(std::max(-127.0, std::min(127.0, rounded)));
}

TEST_P(QuantizeActivationsTest, EveryBitIsTheDefinitions) {
  for (const int64_t columns : {1, 31, 32, 33, 576, 1000}) {
    const int64_t stride = columns + 1, tokens = 5;
    Guarded<float> x(tokens * stride);
    fill_normal(x, rng_, std::exp(rng_.uniform(-20, 20)));
    for (int64_t i = 0; i < x.size(); i += 7) x[i] = 0.5f * static_cast<float>(rng_.between(-254, 254));  // ties
    for (const ActivationScale mode : {ActivationScale::per_block, ActivationScale::per_token, ActivationScale::per_tensor}) {
      QuantizedActivations q;
      q.quantize(x.data(), tokens, columns, stride, {mode, 0.5f});
      const ActivationView& view = q.view();
      const int64_t padded = (columns + 31) / 32 * 32;
      ASSERT_EQ(view.padded_columns, padded);
      for (int64_t t = 0; t < tokens; ++t) {
        for (int64_t block = 0; block < padded / 32; ++block) {
          const int64_t begin = mode == ActivationScale::per_token ? 0 : block * 32;
          const int64_t end = mode == ActivationScale::per_token ? columns : std::min(columns, block * 32 + 32);
          float amax = 0;
          for (int64_t c = begin; c < end; ++c) amax = std::max(amax, std::abs(x[t * stride + c]));
          const float scale = mode == ActivationScale::per_tensor ? 0.5f : amax / 127.0f;
          const float inverse = mode == ActivationScale::per_tensor ? 2.0f : amax > 0 ? 127.0f / amax : 0.0f;
          int sums[2] = {0, 0};
          for (int64_t c = block * 32; c < block * 32 + 32; ++c) {
            const int8_t expected = c < columns ? code_of(x[t * stride + c], inverse) : int8_t{0};
            ASSERT_EQ(view.codes[t * padded + c], expected) << x[t * stride + c] << " * " << inverse;
            sums[c % 32 / 16] += expected;
          }
          const int64_t at = t * (padded / 32) + block;
          ASSERT_EQ(view.scales[at], scale);
          ASSERT_EQ(view.sums[at], scale * static_cast<float>(sums[0] + sums[1]));
          ASSERT_EQ(view.half_sums[2 * at], scale * static_cast<float>(sums[0]));
          ASSERT_EQ(view.half_sums[2 * at + 1], scale * static_cast<float>(sums[1]));
        }
      }
    }
  }
}

TEST_P(QuantizeActivationsTest, AValueThatIsNotFiniteMakesItsBlockNaN) {
  for (const float bad : {std::nanf(""), INFINITY, -INFINITY}) {
    for (const int64_t at : {0, 5, 31}) {
      std::vector<float> x(64, 1.0f);
      x[static_cast<size_t>(32 + at)] = bad;
      QuantizedActivations q;
      q.quantize(x.data(), 1, 64, 64);
      EXPECT_EQ(q.view().scales[0], 1.0f / 127.0f);
      EXPECT_TRUE(std::isnan(q.view().scales[1]));
      q.quantize(x.data(), 1, 64, 64, {ActivationScale::per_tensor, 0.1f});
      EXPECT_TRUE(std::isnan(q.view().scales[1]));
    }
  }
}

TEST_P(QuantizeActivationsTest, TinyAndZeroBlocksGiveZeros) {
  std::vector<float> x(64, 0.0f);
  for (size_t i = 32; i < 64; ++i) x[i] = 1e-39f;
  QuantizedActivations q;
  q.quantize(x.data(), 1, 64, 64);
  for (int i = 0; i < 64; ++i) ASSERT_EQ(q.view().codes[i], 0);
  EXPECT_EQ(q.view().scales[0], 0.0f);
  EXPECT_EQ(q.view().scales[1], 0.0f);
}

TEST_P(QuantizeActivationsTest, BadArgumentsAreErrors) {
  const std::vector<float> x(8);
  QuantizedActivations q;
  EXPECT_THROW(q.quantize(x.data(), 1, 8, 7), Error);
  EXPECT_THROW(q.quantize(x.data(), -1, 8, 8), Error);
  EXPECT_THROW(q.quantize(x.data(), 1, 8, 8, {ActivationScale::per_tensor, 0}), Error);
}

FRUGAL_FOR_EACH_SET(QuantizeActivationsTest);

}  // namespace
}  // namespace frugal::kernels
