// Fake quantization against torch's, and what is stored against what was trained.
#include "quantize/qat_ste.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "method_rows.h"
#include "quantize/quantize_table.h"
#include "train/cross_entropy.h"
#include "train/hidden_states.h"

namespace frugal::quantize {
namespace {

using at::Tensor;
using testing::fresh_seed;
using testing::RandomModel;
using testing::relative_error;

TEST(QatSte, ForwardAndBackwardAreThoseOfTorchsFakeQuantize) {
  Rng rng(fresh_seed());
  for (int trial = 0; trial < 8; ++trial) {
    const chain::GridSpec grid{.bits = static_cast<int>(rng.between(2, 8)), .group = 8, .symmetric = trial % 2 == 0};
    const Tensor weight = at::randn({rng.between(3, 20), 8 * rng.between(1, 6)}).requires_grad_(), slope = at::randn(weight.sizes());
    torch::autograd::backward({fake_quantized(weight, {}, grid)}, {slope});
    // torch's channels are the groups here; its integers begin at 0 and its zero points are integers, as rtn's are.
    const chain::GridCodes codes = chain::round_to_grid(weight.detach(), {}, grid);
    std::vector<float> scales;
    std::vector<int32_t> zeros;
    for (const chain::GroupGrid& one : codes.grids) {
      scales.push_back(one.scale);
      zeros.push_back(static_cast<int32_t>(one.zero));
    }
    const Tensor theirs = weight.detach().clone().requires_grad_();
    const Tensor rounded = at::fake_quantize_per_channel_affine(theirs.view({-1, 8}), at::tensor(scales), at::tensor(zeros, at::kInt), 0, 0, grid.max_code());
    torch::autograd::backward({rounded.view(weight.sizes())}, {slope});
    EXPECT_LT(relative_error(fake_quantized(weight, {}, grid).detach(), rounded.detach().view(weight.sizes())), 1e-6);
    EXPECT_TRUE(at::equal(fake_quantized(weight, {}, grid).detach(), codes.decode())) << "what is stored, to the bit";
    // torch stops the gradient where a position is rounded to beyond the last code, which only the largest weights of a group can be.
    const Tensor inside = theirs.grad() != 0;
    EXPECT_TRUE(at::equal(weight.grad().masked_select(inside), theirs.grad().masked_select(inside)));
    EXPECT_TRUE(at::equal(weight.grad(), slope));
    const Tensor code = at::from_blob(const_cast<uint8_t*>(codes.codes.data()), weight.sizes(), at::kByte);
    EXPECT_TRUE(((code == 0) | (code == grid.max_code()) | inside).all().item<bool>());
  }
}

double loss_of(const nn::Model& model, const std::vector<int32_t>& tokens) {
  std::vector<int64_t> targets(tokens.begin() + 1, tokens.end());
  targets.push_back(train::kIgnored);
  return train::cross_entropy(model, train::hidden_states(model, nn::Batch::equal_parts(tokens, RandomModel::kLength)), at::tensor(targets), 1).item<double>();
}

TEST(QatSte, TheStoredModelHasTheLossThatWasTrained) {
  const at::NoGradGuard no_grad;
  Rng rng(fresh_seed());
  for (int trial = 0; trial < 4; ++trial) {
    RandomModel random(rng);
    nn::Model& model = *random.loaded.model;
    FakeQuantization quantization;
    quantization.grid = {.bits = static_cast<int>(rng.between(2, 5)), .group = rng.between(0, 16), .symmetric = rng.below(2) == 1};
    const auto kind = trial % 2 == 0 ? formats::ActivationQuant::Kind::none : formats::ActivationQuant::Kind::per_token;
    quantization.activation = {.kind = kind, .bits = trial == 1 ? 8 : 4};
    train::TrainedBlocks trained = train::train_blocks(model, fake_quantization(quantization));
    const Tensor logits = random.logits();
    const double loss = loss_of(model, random.tokens);
    for (chain::Matrix& matrix : trained.matrices) {
      matrix.store_grouped(chain::round_to_grid(matrix.weight, matrix.mask, quantization.grid).pack(), quantization.activation);
    }
    train::end_training(model);
    EXPECT_LT(relative_error(random.logits(), logits), 1e-5);
    EXPECT_NEAR(loss_of(model, random.tokens), loss, 1e-5 * loss);
  }
}

TEST(QatSte, KeysAndValuesAreOnTheGridOfTheCache) {
  const at::NoGradGuard no_grad;
  at::manual_seed(fresh_seed());
  nn::Model model = testing::tiny_model({.heads = 4, .kv_heads = 2, .biases = true});
  const Tensor input = at::randn({7, 40});
  const Tensor before = model.blocks[0].value.forward(nn::Activation(input));
  FakeQuantization quantization{.grid = {.bits = 8, .group = 1}};  // exact to the rounding of the scale
  quantization.cache = {.kind = formats::ActivationQuant::Kind::per_token, .bits = 4};
  train::train_blocks(model, fake_quantization(quantization));
  const Tensor after = model.blocks[0].value.forward(nn::Activation(input)).view({7, 2, 8});
  const Tensor position = after / (after.abs().amax(2, true) / 7);
  EXPECT_LT((position - position.round()).abs().max().item<double>(), 1e-2);
  EXPECT_LT(relative_error(after.view({7, 16}), before), 0.1);
  EXPECT_GT(relative_error(after.view({7, 16}), before), 1e-3);
}

// KL of the model before to the one after, on the chain's text.
double divergence(const Tensor& before, const Tensor& after) {
  const Tensor p = at::log_softmax(before, 1), q = at::log_softmax(after, 1);
  return (p.exp() * (p - q)).sum(1).mean().item<double>();
}

TEST(QatSte, TrainingComesCloserToTheModelThanRounding) {
  const chain::StepTable table(quantize_rows());
  const auto after = [&](const std::string& step) {
    Rng rng(testing::test_seed());
    at::manual_seed(testing::test_seed());
    RandomModel model(rng);
    const Tensor before = model.logits();
    model.run(table, {step});
    EXPECT_FALSE(model.loaded.model->final_norm.weight.requires_grad());
    return divergence(before, model.logits());
  };
  const std::string trained = "max_steps=60,learning_rate=5e-3,micro_batch_size=8";
  EXPECT_LT(after("qat-ste:bits=2,group=16," + trained), 0.7 * after("rtn:bits=2,group=16"));
  EXPECT_LT(after("qat-ste:bits=4,group=0,symmetric=true,activation_bits=4,kv_bits=8," + trained), 0.9 * after("w8a8-dynamic:bits=4,activation_bits=4"));
  EXPECT_LT(after("qat-ste:bits=2,group=16,gradient_checkpointing=true," + trained), 0.7 * after("rtn:bits=2,group=16"));
}

TEST(QatSte, TextMayBeTheModelsOwn) {
  const chain::StepTable table(quantize_rows());
  Rng rng(fresh_seed());
  RandomModel model(rng);
  const Tensor before = model.logits();
  model.tokens.clear();  // not read
  chain::Workbench bench(model.loaded, {}, {.sequences = 8, .sequence_length = 24}, 1);
  chain::run_chain(bench, chain::parse_chain(table, {"qat-ste:bits=4,data=generated,learning_rate=1e-3"}));
  const auto* grouped = dynamic_cast<const nn::GroupedKind*>(bench.model.blocks[0].up.kinds().front().get());
  ASSERT_NE(grouped, nullptr);
  EXPECT_EQ(grouped->weight()->bits, 4);
  EXPECT_EQ(table.at("qat-ste").function.needs(Options("qat-ste", table.at("qat-ste").options, {{"data", "generated"}})), chain::kNeedsNothing);
}

TEST(QatSte, BadOptionsAndOrdersAreRefused) {
  const chain::StepTable table(quantize_rows());
  Rng rng(fresh_seed());
  RandomModel model(rng);
  EXPECT_THROW(model.run(table, {"qat-ste:activation_bits=1"}), Error);
  EXPECT_THROW(chain::parse_chain(table, {"rtn", "qat-ste"}), Error);
  EXPECT_THROW(chain::parse_chain(table, {"qat-ste", "rtn"}), Error);
}

}  // namespace
}  // namespace frugal::quantize
