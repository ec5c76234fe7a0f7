#include "tune/qlora.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "nn/nf4_kind.h"
#include "ops/autocast.h"
#include "oracle.h"
#include "tiny_model.h"
#include "train/hidden_states.h"

namespace frugal::tune {
namespace {

using testing::relative_error;

std::unique_ptr<Adapter> attach(nn::Model& model, const std::string& method) {
  const AdapterRow& row = adapter_table().at(method);
  return row.function(model, Options(row.id, row.options, {{"r", "3"}}), {.seed = 1});
}

// Gradients of a weighted sum of the hidden rows, with B away from its zeros.
std::map<std::string, Tensor> gradients(nn::Model& model, Adapter& adapter, const std::vector<int32_t>& tokens, const Tensor& weights) {
  int64_t number = 0;
  for (train::Parameter& parameter : adapter.parameters()) {
    const at::NoGradGuard no_grad;
    if (parameter.name.ends_with("lora_B.weight"))
      parameter.tensor.copy_(at::arange(parameter.tensor.numel(), at::kFloat).view(parameter.tensor.sizes()).add_(++number).sin_().mul_(0.05));
  }
  (train::hidden_states(model, nn::Batch::single(tokens, nullptr)).to(at::kFloat) * weights).sum().backward();
  std::map<std::string, Tensor> result;
  for (const train::Parameter& parameter : adapter.parameters()) result[parameter.name] = parameter.tensor.grad();
  return result;
}

TEST(Qlora, GradientsAreThoseOfALoraBesideTheDecodedWeights) {
  at::manual_seed(testing::test_seed());
  nn::Model model = testing::tiny_model({.tied = false, .biases = true});
  const std::vector<int32_t> tokens = testing::random_tokens(20, model.spec.vocab);
  const Tensor weights = at::randn({20, model.spec.hidden}), head = model.head.dense();
  const nn::Model floats = model;
  const auto adapter = attach(model, "qlora");
  EXPECT_TRUE(at::equal(model.head.dense(), head));
  model.set_execution(nn::Execution::stored);

  nn::Model decoded = floats;  // its Linears hold what the 4 bits decode to
  for (size_t b = 0; b < decoded.blocks.size(); ++b) {
    const auto linears = decoded.blocks[b].linears(), four_bit = model.blocks[b].linears();
    for (size_t i = 0; i < linears.size(); ++i) {
      const nn::LinearKind& base = *four_bit[i]->kinds().front();
      ASSERT_EQ(base.describe(), "NF4 b64 double");
      EXPECT_LT(relative_error(base.dense(), linears[i]->dense()), 0.12);
      EXPECT_GT(relative_error(base.dense(), linears[i]->dense()), 0.01);
      linears[i]->replace(std::make_shared<nn::DenseKind>(base.dense()));
    }
  }
  const auto plain = attach(decoded, "lora");
  decoded.set_execution(nn::Execution::expanded);
  const auto want = gradients(decoded, *plain, tokens, weights), got = gradients(model, *adapter, tokens, weights);
  ASSERT_EQ(got.size(), want.size());
  for (const auto& [name, gradient] : want) EXPECT_LT(relative_error(got.at(name), gradient), 1e-5) << name;

  for (train::Parameter& parameter : adapter->parameters()) parameter.tensor.mutable_grad() = Tensor();
  const ops::Autocast autocast(at::kBFloat16);  // as the paper computes
  for (const auto& [name, gradient] : gradients(model, *adapter, tokens, weights)) {
    EXPECT_EQ(gradient.scalar_type(), at::kFloat);
    EXPECT_LT(relative_error(gradient, want.at(name)), 0.05) << name;
  }
}

TEST(Qlora, WhatIsQuantizedStaysAndTheRestTakesFourBits) {
  at::manual_seed(testing::test_seed());
  nn::Model model = testing::tiny_model({.hidden = 64, .heads = 4, .head_dim = 16, .intermediate = 192});
  const auto grouped = std::make_shared<nn::GroupedKind>(std::make_shared<formats::GroupedWeight>(testing::random_grouped(64, 64, 3, 32, true)));
  model.blocks[0].query.replace(grouped);
  for (const bool double_quantized : {true, false}) {
    nn::Model base = model;
    const FourBitReport report = quantize_base(base, double_quantized);
    EXPECT_EQ(report.quantized, 13);
    EXPECT_EQ(report.kept, 1);
    EXPECT_EQ(base.blocks[0].query.kinds().front(), grouped);
    const nn::Linear& down = base.blocks[1].down;
    EXPECT_EQ(down.describe(), double_quantized ? "NF4 b64 double" : "NF4 b64");
    const int64_t blocks = 64 * 192 / 64;
    EXPECT_EQ(down.storage_bytes(), static_cast<uint64_t>(64 * 192 / 2 + 64 + (double_quantized ? blocks + 4 * (256 + 1 + 1) : 4 * blocks)));
    base.set_execution(nn::Execution::stored);
    EXPECT_EQ(down.resident_bytes(), down.storage_bytes());
    EXPECT_EQ(quantize_base(base).quantized, 0);
  }
}

}  // namespace
}  // namespace frugal::tune
