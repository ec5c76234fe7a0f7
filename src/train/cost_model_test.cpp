// The estimate's parts against what there is: the tensors and the optimizer states of a model, and what autograd keeps of a block.
#include "train/cost_model.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <map>

#include "base/error.h"
#include "dist/test_ranks.h"
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

TEST(CostModel, WhatStepsInBackwardHoldsTheHeadsGradientAndOneMore) {
  nn::ModelSpec spec = large();
  const double head = 4.0 * 40'000 * 512, matrix = 4.0 * 512 * static_cast<double>(spec.blocks.front().intermediate);
  EXPECT_EQ(spec.tied_embeddings, true);
  EXPECT_EQ(estimate(spec, workload(1, Strategy::ddp), "lomo").gradients, head + matrix);
  spec.tied_embeddings = false;
  EXPECT_EQ(estimate(spec, workload(1, Strategy::ddp), "lomo").gradients, 2 * head);
  EXPECT_THROW(estimate(spec, workload(2, Strategy::ddp), "lomo"), Error) << "which takes one process, as a run does";
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

Workload shared(int ranks, ModelParallelSize size, int64_t micro_batches = 8) {
  Workload work = workload(ranks, Strategy::ddp, micro_batches);
  work.size = size;
  return work;
}

TEST(CostModel, RanksThatShareAModelHaveTheirPartsOfIt) {
  for (testing::TinyModelOptions shape : {testing::TinyModelOptions{}, {.tied = false, .biases = true}, {.qk_norm = true, .post_norms = true}}) {
    for (const ModelParallelSize size : {ModelParallelSize{.tensor = 2}, ModelParallelSize{.pipeline = 2}, ModelParallelSize{.tensor = 2, .pipeline = 2}}) {
      shape.heads = 4, shape.kv_heads = 2, shape.blocks = 3, shape.vocab = 62;
      const nn::Model made = testing::tiny_model(shape);
      dist::on_ranks(size.ranks(), [&](dist::ProcessGroup& world) {
        nn::Model model = made;
        std::vector<Parameter> parameters = all_parameters(model);
        const ModelParallel parallel(world, size, model, parameters);
        std::map<std::string, std::vector<int64_t>> want, got;
        for (const Parameter& parameter : parameters) want[parameter.name] = parameter.tensor.sizes().vec();
        for (const Parameter& parameter : parameters_of_stage(made.spec, size, parallel.stage())) got[parameter.name] = parameter.tensor.sizes().vec();
        EXPECT_EQ(got, want);
      });
    }
  }
}

TEST(CostModel, SharingAModelSavesMemoryAndCostsItsBubbleAndItsSums) {
  const nn::ModelSpec spec = large(64);  // nearly all of it is blocks
  const CostEstimate alone = estimate(spec, shared(1, {})), halves = estimate(spec, shared(2, {.tensor = 2})),
                     stages = estimate(spec, shared(4, {.pipeline = 4}));
  EXPECT_NEAR(halves.parameters / alone.parameters, 0.5, 0.01);
  EXPECT_NEAR(halves.optimizer / alone.optimizer, 0.5, 0.01);
  EXPECT_NEAR(halves.compute_seconds / alone.compute_seconds, 0.5, 0.01);
  EXPECT_EQ(halves.bubble_seconds, 0);
  // Four sums a block of 512 tokens of 512 numbers and two at the ends, of which two ranks send half twice, 8 times.
  EXPECT_NEAR(halves.sent_bytes, 8 * (8 * 4 + 2) * 512.0 * 512 * 4, 1);
  EXPECT_GT(halves.exposed_seconds, halves.sent_bytes / 1e9);
  EXPECT_NEAR(stages.parameters / alone.parameters, 0.25, 0.01);
  EXPECT_NEAR(stages.bubble(), 3.0 / 11, 0.01) << "(p - 1) / (m + p - 1)";
  EXPECT_NEAR(stages.compute_seconds / alone.compute_seconds, 0.25, 0.01);
  // The first stage keeps four micro-batches of a quarter of the blocks.
  EXPECT_NEAR(stages.activations / alone.activations, 1, 0.1);
  EXPECT_EQ(estimate(spec, shared(8, {.tensor = 2, .pipeline = 2})).parameters, estimate(spec, shared(4, {.tensor = 2, .pipeline = 2})).parameters);
  EXPECT_THROW(estimate(spec, shared(3, {.tensor = 2})), Error);
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
