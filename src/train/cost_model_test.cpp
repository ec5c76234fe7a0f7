// The estimate's parts against what there is: the tensors and the optimizer states of a model, and what autograd keeps of a block.
#include "train/cost_model.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <map>

#include "base/error.h"
#include "tiny_model.h"
#include "train/full_parameters.h"
#include "train/hidden_states.h"
#include "train/new_model.h"
#include "train/test_tools.h"

namespace frugal::train {
namespace {

using at::Tensor;

Workload workload(int ranks, Strategy strategy, int64_t micro_batches = 8) {
  return {.ranks = ranks, .strategy = strategy, .micro_batch_tokens = 512, .sequence_tokens = 128, .micro_batches = micro_batches};
}

CostEstimate estimate(const nn::ModelSpec& spec, const Workload& work, const std::string& optimizer = "adamw", const Cluster& cluster = {1e12, 1e9, 1e-5}) {
  const auto& row = optimizer_table().at(optimizer);
  return estimate_cost(spec, work, cluster, row, Options(row.id, row.options, {}));
}

nn::ModelSpec large(int64_t vocab = 40'000) {
  return new_model_spec(
      Options("shape", shape_options(), {{"hidden_size", "512"}, {"num_hidden_layers", "8"}, {"num_attention_heads", "8"}, {"num_key_value_heads", "2"}}),
      vocab);
}

TEST(CostModel, TensorsAreThoseOfTheModel) {
  for (const testing::TinyModelOptions& shape :
       {testing::TinyModelOptions(), testing::TinyModelOptions{.tied = false}, testing::TinyModelOptions{.biases = true},
        testing::TinyModelOptions{.qk_norm = true, .post_norms = true}, testing::TinyModelOptions{.sub_norms = true},
        testing::TinyModelOptions{.norm = nn::NormKind::none, .branch_scales = true}}) {
    nn::Model model = testing::tiny_model(shape);
    std::map<std::string, std::vector<int64_t>> want, got;
    for (const Parameter& parameter : all_parameters(model)) want[parameter.name] = parameter.tensor.sizes().vec();
    for (const Parameter& parameter : parameters_of(model.spec)) got[parameter.name] = parameter.tensor.sizes().vec();
    EXPECT_EQ(got, want);
  }
}

TEST(CostModel, StateIsThatOfTheOptimizer) {
  const nn::ModelSpec spec = large();
  for (const auto& row : optimizer_table().rows()) {
    std::vector<Parameter> parameters;
    for (const Parameter& parameter : parameters_of(spec)) parameters.push_back({parameter.name, at::zeros(parameter.tensor.sizes()).requires_grad_()});
    const double want = static_cast<double>(row.function(parameters, Options(row.id, row.options, {}))->state_bytes());
    const double got = estimate(spec, workload(1, Strategy::ddp), row.id).optimizer;
    EXPECT_NEAR(got, want, 1e-3 * want + 4096) << row.id;
  }
}

TEST(CostModel, ABlockKeepsWhatBackwardReads) {
  constexpr int64_t kTokens = 512;
  const std::vector<int32_t> tokens = testing::random_tokens(kTokens, 97);
  std::map<int, int64_t> kept;
  int64_t per_token = 0;
  for (const int blocks : {2, 6}) {
    nn::Model model = testing::tiny_model({.vocab = 97, .hidden = 64, .heads = 4, .kv_heads = 2, .head_dim = 16, .intermediate = 160, .blocks = blocks});
    all_parameters(model);
    hidden_states(model, nn::Batch::equal_parts(tokens, 128));  // tables of positions
    const auto live = std::make_shared<LiveBytes>();
    const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, live);
    const Tensor hidden = hidden_states(model, nn::Batch::equal_parts(tokens, 128));
    kept[blocks] = live->bytes;
    per_token = kept_per_token(model.spec.blocks.front());
  }
  EXPECT_NEAR(static_cast<double>(kept[6] - kept[2]) / (4 * kTokens * 4), static_cast<double>(per_token), 0.03 * static_cast<double>(per_token));
}

TEST(CostModel, SharesOfStateAndGradientsFallWithTheRanks) {
  const nn::ModelSpec spec = large(4'000);
  const CostEstimate alone = estimate(spec, workload(1, Strategy::ddp));
  double all = 0;
  for (const Parameter& parameter : parameters_of(spec)) all += 4.0 * static_cast<double>(parameter.tensor.numel());
  EXPECT_EQ(alone.parameters, all);
  EXPECT_EQ(alone.gradients, all);
  EXPECT_EQ(alone.exposed_seconds, 0);
  const CostEstimate ddp = estimate(spec, workload(2, Strategy::ddp)), zero1 = estimate(spec, workload(2, Strategy::zero1));
  const CostEstimate zero2 = estimate(spec, workload(2, Strategy::zero2)), zero3 = estimate(spec, workload(2, Strategy::zero3));
  EXPECT_EQ(ddp.optimizer, alone.optimizer);
  EXPECT_NEAR(zero1.optimizer / alone.optimizer, 0.5, 0.1);
  EXPECT_EQ(zero1.gradients, all);
  EXPECT_LT(zero2.gradients, all);
  EXPECT_LT(zero3.parameters, all);
  EXPECT_LT(zero3.bytes(), zero2.bytes());
  EXPECT_LT(zero2.bytes(), zero1.bytes());
  EXPECT_LT(zero1.bytes(), ddp.bytes());
  // Twice the bytes of the model by half of the ranks, at 1 GB/s; the reduce to the owner and the broadcast are as much.
  EXPECT_EQ(ddp.sent_bytes, all);
  EXPECT_EQ(zero1.sent_bytes, all);
  EXPECT_GT(zero3.sent_bytes, zero2.sent_bytes);
}

TEST(CostModel, TimeIsWorkOverSpeed) {
  const nn::ModelSpec spec = large();
  const CostEstimate one = estimate(spec, workload(1, Strategy::ddp)), four = estimate(spec, workload(4, Strategy::ddp));
  EXPECT_NEAR(one.compute_seconds / four.compute_seconds, 4, 1e-9);
  EXPECT_NEAR(one.tokens_per_second, 8 * 512 / one.compute_seconds, 1e-6);
  // Sums are hidden behind a slow computer, and not behind a fast one.
  EXPECT_LT(estimate(spec, workload(4, Strategy::ddp), "adamw", {1e9, 1e9, 0}).exposed_seconds, 1e-9);
  EXPECT_GT(estimate(spec, workload(4, Strategy::ddp), "adamw", {1e15, 1e9, 0}).exposed_seconds, 0.1);
  EXPECT_THROW(estimate(spec, workload(4, Strategy::ddp, 3)), Error);
}

}  // namespace
}  // namespace frugal::train
