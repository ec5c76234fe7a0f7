// Every operator against its slow definition, on shapes that no power of two divides. The slow definitions are ATen's
// own operators, whose gradients are torch's.
#include "ops/ops.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <array>
#include <functional>

#include "base/error.h"
#include "base/team.h"
#include "ops/autocast.h"
#include "ops/gemm.h"
#include "ops/packed_linear.h"
#include "oracle.h"

namespace frugal::ops {
namespace {

class OpsTest : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(testing::test_seed()); }
};

double relative_error(const Tensor& got, const Tensor& want) { return ((got - want).norm() / (want.norm() + 1e-30)).item<double>(); }

TEST_F(OpsTest, RmsNormEqualsItsDefinition) {
  const Tensor x = at::randn({7, 5, 72}) * 3, weight = at::randn({72});
  for (const double offset : {0.0, 1.0}) {
    EXPECT_LT(relative_error(rms_norm(x, weight, 1e-5, offset), rms_norm_reference(x, weight, 1e-5, offset)), 1e-6);
  }
}

TEST_F(OpsTest, RopeEqualsItsDefinitionAlsoWhenItRotatesAPartOfAHead) {
  const Tensor x = at::randn({9, 3, 20});
  const Tensor positions = at::randint(0, 33, {9}, at::kLong);
  for (const int64_t half : {4, 10}) {
    const Tensor angles = at::rand({33, half}) * 10;
    EXPECT_LT(relative_error(rope(x, positions, angles.cos(), angles.sin()), rope_reference(x, positions, angles.cos(), angles.sin())), 1e-6);
  }
}

TEST_F(OpsTest, GatedActivationEqualsItsDefinition) {
  const Tensor gate = at::randn({11, 37}) * 4, up = at::randn({11, 37});
  for (const Gate kind : {Gate::silu, Gate::gelu_tanh}) {
    EXPECT_LT(relative_error(gated_activation(gate, up, kind), gated_activation_reference(gate, up, kind)), 1e-6);
  }
}

TEST_F(OpsTest, AttentionOverRangesEqualsItsDefinition) {
  const Tensor q = at::randn({90, 6, 24}), k = at::randn({90, 2, 24}), v = at::randn({90, 2, 24});
  const AttentionRange ranges[] = {{0, 70}, {70, 1}, {71, 19}};
  for (const int64_t window : {0, 5}) {
    const AttentionOptions options{0.2, window};
    EXPECT_LT(relative_error(attention(q, k, v, ranges, options), attention_reference(q, k, v, ranges, options)), 2e-6);
  }
}

// The gradients of `op` by `inputs` against those of its slow definition.
void expect_equal_gradients(std::vector<Tensor> inputs, const std::function<Tensor(const std::vector<Tensor>&)>& op,
                            const std::function<Tensor(const std::vector<Tensor>&)>& reference, const char* what) {
  std::vector<Tensor> got, want;
  Tensor weights;
  for (const auto* function : {&op, &reference}) {
    for (Tensor& input : inputs) {
      input = input.detach().clone().requires_grad_();
    }
    const Tensor out = (*function)(inputs);
    ASSERT_TRUE(out.requires_grad()) << what;
    if (!weights.defined()) weights = at::randn_like(out);
    (out * weights).sum().backward();
    for (const Tensor& input : inputs) (function == &op ? got : want).push_back(input.grad());
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    ASSERT_TRUE(got[i].defined()) << what << " input " << i;
    EXPECT_LT(relative_error(got[i], want[i]), 3e-6) << what << " input " << i;
  }
}

TEST_F(OpsTest, GradientsEqualThoseOfTheDefinitions) {
  for (const double offset : {0.0, 1.0}) {
    expect_equal_gradients(
        {at::randn({71, 5, 73}) * 3, at::randn({73})}, [&](const auto& x) { return rms_norm(x[0], x[1], 1e-5, offset); },
        [&](const auto& x) { return rms_norm_reference(x[0], x[1], 1e-5, offset); }, "rms_norm");
  }
  const Tensor positions = at::randint(0, 33, {9}, at::kLong), angles = at::rand({33, 7}) * 10;
  expect_equal_gradients(
      {at::randn({9, 3, 20})}, [&](const auto& x) { return rope(x[0], positions, angles.cos(), angles.sin()); },
      [&](const auto& x) { return rope_reference(x[0], positions, angles.cos(), angles.sin()); }, "rope");
  for (const Gate kind : {Gate::silu, Gate::gelu_tanh}) {
    expect_equal_gradients(
        {at::randn({11, 37}) * 4, at::randn({11, 37})}, [&](const auto& x) { return gated_activation(x[0], x[1], kind); },
        [&](const auto& x) { return gated_activation_reference(x[0], x[1], kind); }, "gated_activation");
  }
  const AttentionRange ranges[] = {{0, 20}, {20, 20}, {40, 1}, {41, 49}};
  for (const int64_t window : {0, 5, 30}) {
    const AttentionOptions options{0.2, window};
    expect_equal_gradients(
        {at::randn({90, 6, 24}), at::randn({90, 2, 24}), at::randn({90, 2, 24})}, [&](const auto& x) { return attention(x[0], x[1], x[2], ranges, options); },
        [&](const auto& x) { return attention_reference(x[0], x[1], x[2], ranges, options); }, "attention");
  }
}

TEST_F(OpsTest, GemmAndDenseLinearEqualTheDefinitionsInEveryArrangement) {
  const Tensor a = at::randn({70, 33}), b = at::randn({33, 41});
  EXPECT_LT(relative_error(gemm(a, b), at::matmul(a, b)), 1e-6);
  EXPECT_LT(relative_error(gemm(a.t().contiguous().t(), b.t().contiguous().t()), at::matmul(a, b)), 1e-6);
  EXPECT_LT(relative_error(gemm(a.narrow(0, 3, 20).narrow(1, 2, 30), b.narrow(0, 1, 30)), at::matmul(a.narrow(0, 3, 20).narrow(1, 2, 30), b.narrow(0, 1, 30))),
            1e-6);
  Tensor c = at::randn({70, 41});
  const Tensor before = c.clone();
  gemm_into(c, a, b, 0.5, true);
  EXPECT_LT(relative_error(c, before + 0.5 * at::matmul(a, b)), 1e-6);
  EXPECT_EQ(gemm(a.narrow(0, 0, 0), b).size(0), 0);
  expect_equal_gradients(
      {at::randn({5, 12}), at::randn({7, 12})}, [](const auto& x) { return dense_linear(x[0], x[1]); }, [](const auto& x) { return at::linear(x[0], x[1]); },
      "dense_linear");
  EXPECT_THROW(gemm(a.to(at::kDouble), b.to(at::kDouble)), Error);
}

TEST_F(OpsTest, FrozenLinearGivesItsInputTheGradientOfLinear) {
  const Tensor weight = at::randn({7, 12});
  int made = 0;
  expect_equal_gradients(
      {at::randn({5, 12})}, [&](const auto& x) { return frozen_linear(x[0], [&] { return ++made, weight; }); },
      [&](const auto& x) { return at::linear(x[0], weight); }, "frozen_linear");
  EXPECT_EQ(made, 2);
}

// Of every operator: 16 bits come out, of float32 or 16-bit inputs, near the definition of the exact numbers, and so are gradients, each of its input's type.
TEST_F(OpsTest, UnderAutocastActivationsHave16BitsAndGradientsAreNearTheDefinitions) {
  using Function = std::function<Tensor(const std::vector<Tensor>&)>;
  struct Case {
    const char* name;
    std::vector<Tensor> activations, weights;
    Function op, reference;
  };
  const Tensor positions = at::randint(0, 33, {9}, at::kLong), angles = at::rand({33, 7}) * 10, frozen = at::randn({7, 36});
  const AttentionRange ranges[] = {{0, 20}, {20, 20}, {40, 1}, {41, 49}};
  const AttentionOptions options{0.2, 30};
  const Case cases[] = {
      {"rms_norm",
       {at::randn({71, 5, 73}) * 3},
       {at::randn({73})},
       [&](const auto& x) { return rms_norm(x[0], x[1], 1e-5, 1.0); },
       [&](const auto& x) { return rms_norm_reference(x[0], x[1], 1e-5, 1.0); }},
      {"rope",
       {at::randn({9, 3, 20})},
       {},
       [&](const auto& x) { return rope(x[0], positions, angles.cos(), angles.sin()); },
       [&](const auto& x) { return rope_reference(x[0], positions, angles.cos(), angles.sin()); }},
      {"gated_activation",
       {at::randn({11, 37}) * 4, at::randn({11, 37})},
       {},
       [&](const auto& x) { return gated_activation(x[0], x[1], Gate::silu); },
       [&](const auto& x) { return gated_activation_reference(x[0], x[1], Gate::silu); }},
      {"attention",
       {at::randn({90, 6, 24}), at::randn({90, 2, 24}), at::randn({90, 2, 24})},
       {},
       [&](const auto& x) { return attention(x[0], x[1], x[2], ranges, options); },
       [&](const auto& x) { return attention_reference(x[0], x[1], x[2], ranges, options); }},
      {"dense_linear",
       {at::randn({50, 36})},
       {at::randn({7, 36})},
       [](const auto& x) { return dense_linear(x[0], x[1]); },
       [](const auto& x) { return at::linear(x[0], x[1]); }},
      {"frozen_linear",
       {at::randn({50, 36})},
       {},
       [&](const auto& x) { return frozen_linear(x[0], [&] { return frozen; }); },
       [&](const auto& x) { return at::linear(x[0], frozen); }},
  };
  for (const auto& [type, tolerance] : {std::pair{at::kBFloat16, 8e-3}, std::pair{at::kHalf, 1e-3}}) {
    for (const Case& c : cases) {
      for (const at::ScalarType input_type : {at::kFloat, type}) {
        SCOPED_TRACE(fmt::format("{} {} of {}", c.name, at::toString(type), at::toString(input_type)));
        std::vector<Tensor> got, want;
        for (const Tensor& x : c.activations) {
          got.push_back(x.to(input_type).detach().requires_grad_());
          want.push_back(x.clone().requires_grad_());
        }
        for (const Tensor& x : c.weights) {
          got.push_back(x.clone().requires_grad_());
          want.push_back(x.clone().requires_grad_());
        }
        const Autocast autocast(type);
        const Tensor out = c.op(got);
        EXPECT_EQ(out.scalar_type(), type);
        {
          const at::NoGradGuard no_grad;
          EXPECT_TRUE(at::equal(c.op(got), out));
        }
        const Tensor exact = c.reference(want), gradient = at::randn_like(exact);
        EXPECT_LT(relative_error(out.to(at::kFloat), exact), tolerance);
        out.backward(gradient.to(type));
        exact.backward(gradient);
        for (size_t i = 0; i < got.size(); ++i) {
          EXPECT_EQ(got[i].grad().scalar_type(), got[i].scalar_type());
          EXPECT_LT(relative_error(got[i].grad().to(at::kFloat), want[i].grad()), tolerance) << "input " << i;
        }
      }
    }
  }
  EXPECT_EQ(activation_type(), at::kFloat);
  EXPECT_EQ(rms_norm(at::randn({2, 4}), at::ones({4}), 1e-5, 0).scalar_type(), at::kFloat);
  EXPECT_THROW(rms_norm(at::randn({2, 4}, at::kDouble), at::ones({4}), 1e-5, 0), Error);
}

// What a residual stream can grow to (Gemma 3's does) has a gradient under float16.
TEST_F(OpsTest, ANormUnderFloat16KeepsInputsBeyondItsRange) {
  const Tensor x = (at::randn({5, 64}) * 1e5).requires_grad_(), weight = at::randn({64}).requires_grad_();
  const Autocast autocast(at::kHalf);
  rms_norm(x, weight, 1e-5, 0).to(at::kFloat).sum().backward();
  EXPECT_TRUE(x.grad().isfinite().all().item<bool>() && weight.grad().isfinite().all().item<bool>());
}

TEST_F(OpsTest, GradientOfANormDoesNotDependOnTheThreads) {
  const Tensor x = at::randn({1000, 96}), weight = at::randn({96}), weights = at::randn({1000, 96});
  std::vector<Tensor> found;
  for (const int threads : {1, 2, 3}) {
    set_team_size(threads);
    const Tensor w = weight.clone().requires_grad_();
    (rms_norm(x, w, 1e-5, 0) * weights).sum().backward();
    found.push_back(w.grad());
  }
  EXPECT_TRUE(at::equal(found[0], found[1]) && at::equal(found[0], found[2]));
}

TEST_F(OpsTest, AttentionOverACacheEqualsTheLastRowsOfAttentionOverAll) {
  const Tensor q = at::randn({90, 6, 24}), k = at::randn({90, 2, 24}), v = at::randn({90, 2, 24});
  const AttentionRange all{0, 90};
  const Tensor want = attention_reference(q, k, v, {&all, 1}, {0.2, 0}).narrow(0, 60, 30);
  const Tensor last = q.narrow(0, 60, 30);
  for (const auto& [type, tolerance] : {std::pair{CacheType::f32, 2e-6}, std::pair{CacheType::f16, 1e-3}, std::pair{CacheType::int8, 2e-2}}) {
    const CacheLayout layout = {type, 2, 24, 32};
    // Blocks of two layers in slabs of two, used in no order; written in two goes.
    std::vector<Tensor> memory;
    std::vector<std::byte*> slabs;
    for (int slab = 0; slab < 3; ++slab) {
      memory.push_back(at::zeros({2 * 4 * layout.page_bytes()}, at::kByte));
      slabs.push_back(static_cast<std::byte*>(memory.back().mutable_data_ptr()));
    }
    const CachePages pages{layout, slabs, 2, 4 * layout.page_bytes(), 3 * layout.page_bytes(), 2 * layout.page_bytes()};
    const std::vector<int32_t> blocks = {5, 0, 3};
    for (const auto& [part, rows] : {std::pair{CachePart::keys, &k}, std::pair{CachePart::values, &v}}) {
      write_cache(part, pages, blocks, *rows, 0, 45, 0);
      write_cache(part, pages, blocks, *rows, 45, 45, 45);
    }
    EXPECT_LT(relative_error(cached_attention(last, std::array{CachedSequence{0, 30, &pages, blocks, 90}}, {0.2, 0}), want), tolerance);
  }
}

}  // namespace
}  // namespace frugal::ops
