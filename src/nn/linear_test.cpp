// Each kind of Linear against the product with its own dense weight, in each execution form.
#include "nn/linear.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tiny_model.h"

namespace frugal::nn {
namespace {

using testing::random_grouped;
using testing::relative_error;

// expanded: equal to the product; packed: within the rounding of 8-bit activations (measured 4e-3 for Gaussian inputs).
void expect_consistent(LinearKind& kind, double packed_tolerance) {
  const Tensor x = at::randn({5, kind.in_features()});
  const Tensor want = at::matmul(x, kind.dense().t());
  for (const auto& [execution, tolerance] : {std::pair{Execution::stored, 1e-5}, {Execution::expanded, 1e-5}, {Execution::packed, packed_tolerance}}) {
    kind.set_execution(execution);
    EXPECT_LT(relative_error(kind.forward(Activation(x)), want), tolerance) << kind.describe() << " execution " << static_cast<int>(execution);
    EXPECT_LT(relative_error(kind.dense(), kind.dense()), 1e-6);
  }
  const Tensor ids = at::randint(0, kind.out_features(), {4}, at::kLong);
  EXPECT_TRUE(at::equal(kind.rows(ids), kind.dense().index_select(0, ids)));
}

TEST(Linear, DenseKindsInEveryFloatTypeMultiplyAlike) {
  for (const at::ScalarType type : {at::kFloat, at::kHalf, at::kBFloat16}) {
    DenseKind kind(at::randn({23, 40}).to(type));
    expect_consistent(kind, 1e-5);
  }
}

TEST(Linear, GroupedKindsOfEveryWidthAndRaggedGroupsMultiplyAlike) {
  for (int bits = 1; bits <= 8; ++bits) {
    for (const int64_t group : {32, 64, 72, 24}) {
      GroupedKind kind(std::make_shared<formats::GroupedWeight>(random_grouped(19, 72, bits, group, bits % 2 == 0)));
      expect_consistent(kind, 1.5e-2);
    }
  }
}

TEST(Linear, ActivationsOfAW8A8LayerAreRoundedTheSameWayInFloatAndInIntegers) {
  formats::ActivationQuant quant{formats::ActivationQuant::Kind::per_token, 8, 0};
  GroupedKind kind(std::make_shared<formats::GroupedWeight>(random_grouped(19, 96, 8, 96, true)), quant);
  const Tensor x = at::randn({7, 96});
  kind.set_execution(Execution::expanded);
  const Tensor in_float = kind.forward(Activation(x));
  kind.set_execution(Execution::packed);
  EXPECT_LT(relative_error(kind.forward(Activation(x)), in_float), 1e-5);
  EXPECT_GT(relative_error(at::matmul(x, kind.dense().t()), in_float), 1e-4);  // rounding did happen
}

TEST(Linear, BlockKindsMultiplyAsTheyDecode) {
  for (const char* id : {"Q4_0", "Q4_1", "Q8_0", "Q5_0"}) {
    const formats::Format& format = formats::format_at(id);
    const Tensor weight = at::randn({17, 96});
    const auto bytes = std::make_shared<std::vector<std::byte>>(formats::bytes_of(format, 17 * 96));
    format.encode(weight.const_data_ptr<float>(), nullptr, bytes->data(), 17 * 96);
    BlockKind kind(format, {*bytes, bytes}, 17, 96);
    EXPECT_LT(relative_error(kind.dense(), weight), 0.15);
    expect_consistent(kind, 1.5e-2);
  }
}

TEST(Linear, LowRankKindsAreTheProductOfTheirFactorsAlsoWhenTheseAreQuantized) {
  LowRankKind plain(std::make_shared<DenseKind>(at::randn({6, 40})), std::make_shared<DenseKind>(at::randn({23, 6})));
  expect_consistent(plain, 1e-5);
  LowRankKind quantized(std::make_shared<GroupedKind>(std::make_shared<formats::GroupedWeight>(random_grouped(32, 64, 4, 32, true))),
                        std::make_shared<GroupedKind>(std::make_shared<formats::GroupedWeight>(random_grouped(23, 32, 4, 32, true))));
  expect_consistent(quantized, 3e-2);
}

TEST(Linear, KindsAddUpAndAnInputIsQuantizedOnceForAll) {
  Linear linear("x", std::make_shared<DenseKind>(at::randn({8, 32})), at::randn({8}));
  const Tensor base = linear.dense();
  const Tensor a = at::randn({2, 32}), b = at::randn({8, 2});
  linear.replace({linear.kinds().front(), std::make_shared<LowRankKind>(std::make_shared<DenseKind>(a), std::make_shared<DenseKind>(b))});
  const Tensor x = at::randn({3, 32});
  EXPECT_LT(relative_error(linear.forward(Activation(x)), at::linear(x, base + at::matmul(b, a), linear.bias())), 1e-5);
  const Activation input(x);
  EXPECT_EQ(&input.quantized({}), &input.quantized({}));
}

}  // namespace
}  // namespace frugal::nn
