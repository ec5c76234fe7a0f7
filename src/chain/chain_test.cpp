// The layer loop and Matrix, with steps made here: what a method may rely on.
#include "chain/chain.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "chain/calibration_cache.h"
#include "tiny_model.h"

namespace frugal::chain {
namespace {

using testing::random_tokens;
using testing::relative_error;
using testing::tiny_model;

// Seen by the steps below, which are plain functions.
std::vector<std::map<nn::InputPoint, InputStatistics>> seen;

unsigned all_needs(const Options&) { return kNeedsHessian | kNeedsMagnitude | kNeedsSample; }
void record(BlockContext& context, const Options&) { seen.push_back(context.inputs); }
void halve(BlockContext& context, const Options&) {
  for (Matrix& matrix : context.matrices()) matrix.store_dense(matrix.weight * 0.5);
}
void mask_half(BlockContext& context, const Options&) {
  for (Matrix& matrix : context.matrices()) matrix.store_masked(matrix.weight, matrix.weight > 0);
}
void factor(BlockContext& context, const Options&) {
  for (Matrix& matrix : context.matrices()) {
    const auto [u, s, v] = at::linalg_svd(matrix.weight, /*full_matrices=*/false);
    matrix.store_low_rank(v, u * s);
  }
}
void to_grid(BlockContext& context, const Options&) {
  for (Matrix& matrix : context.matrices()) {
    formats::GroupedWeight grouped;
    grouped.rows = matrix.out_features();
    grouped.columns = matrix.in_features();
    grouped.bits = 8;
    grouped.group_size = grouped.columns;
    grouped.symmetric = true;
    grouped.codes.resize(static_cast<size_t>(grouped.rows * grouped.words_per_row()));
    const Tensor scale = (matrix.weight.abs().amax(1) / 127).to(at::kHalf).to(at::kFloat);
    const Tensor codes = (at::round(matrix.weight / scale.unsqueeze(1)).clamp(-128, 127) + 128).to(at::kByte).contiguous();
    for (int64_t r = 0; r < grouped.rows; ++r) {
      grouped.scales.push_back(scale[r].item<float>());
      formats::pack_row(grouped, r, codes.const_data_ptr<uint8_t>() + r * grouped.columns);
    }
    matrix.store_grouped(std::move(grouped));
  }
}
void smooth(BlockContext& context, const Options&) {
  for (const nn::InputPoint point : nn::kInputPoints) {
    Tensor scale = context.statistics(point).abs_mean + 0.5;
    if (point == nn::InputPoint::attention_output) scale = context.shared_over_heads(scale);
    context.scale_input(point, scale);
  }
}

StepTable test_table() {
  const auto row = [](const char* id, StepEffect effect, auto run, bool calibrated, bool sequential) {
    return StepRow{id, id, "test", "", "", {}, Step{StepScope::block, effect, calibrated ? all_needs : nullptr, run, nullptr, sequential}, {}, "test"};
  };
  return StepTable({row("record", StepEffect::transform, record, true, false), row("record-sequential", StepEffect::transform, record, true, true),
                    row("halve", StepEffect::transform, halve, false, false), row("mask", StepEffect::mask, mask_half, false, false),
                    row("factor", StepEffect::low_rank, factor, false, false), row("grid", StepEffect::quantize, to_grid, false, false),
                    row("smooth", StepEffect::transform, smooth, true, false)});
}

class ChainTest : public ::testing::Test {
 protected:
  void SetUp() override {
    seen.clear();
    at::manual_seed(7);
    loaded_.model = std::make_shared<nn::Model>(tiny_model({.heads = 6, .kv_heads = 2}));
    tokens_ = random_tokens(96, loaded_.model->spec.vocab);
  }
  Workbench bench() { return Workbench(loaded_, {"test", tokens_}, {.sequences = 6, .sequence_length = 16, .sample_sequences = 2}, 1); }
  void run(const std::vector<std::string>& steps) {
    Workbench workbench = bench();
    run_chain(workbench, parse_chain(table_, steps));
  }
  Tensor logits() { return loaded_.model->forward(nn::Batch::equal_parts(tokens_, 16)).logits; }

  StepTable table_ = test_table();
  nn::LoadedModel loaded_;
  std::vector<int32_t> tokens_;
};

TEST_F(ChainTest, StatisticsAreThoseOfTheInputsThatTheTokensCause) {
  run({"record"});
  ASSERT_EQ(seen.size(), 2u);
  // By hand, in double: the second block's MLP input.
  const nn::Model& model = *loaded_.model;
  const auto batch = nn::Batch::equal_parts(tokens_, 16);
  const Tensor positions = nn::Model::positions(batch.sequences);
  Tensor hidden = model.blocks[0].forward(model.embed(tokens_), batch.sequences, positions);
  Tensor x;
  model.blocks[1].forward(hidden, batch.sequences, positions, [&](nn::InputPoint point, const Tensor& input) {
    if (point == nn::InputPoint::mlp_input) x = input.to(at::kDouble);
  });
  const InputStatistics& s = seen[1].at(nn::InputPoint::mlp_input);
  EXPECT_EQ(s.tokens, 96);
  EXPECT_LT(relative_error(s.hessian.to(at::kDouble), at::matmul(x.t(), x) / 96), 1e-5);
  EXPECT_LT(relative_error(s.norm.to(at::kDouble), x.norm(2, 0)), 1e-5);
  EXPECT_LT(relative_error(s.abs_mean.to(at::kDouble), x.abs().mean(0)), 1e-5);
  EXPECT_LT(relative_error(s.abs_max.to(at::kDouble), x.abs().amax(0)), 1e-6);
  EXPECT_LT(relative_error(s.sample.to(at::kDouble), x.narrow(0, 0, 32)), 1e-6);
}

TEST_F(ChainTest, SequentialStepsSeeWhatCompressedBlocksPutOutAndOthersTheOriginal) {
  run({"record"});
  run({"halve", "record"});
  EXPECT_LT(relative_error(seen[3].at(nn::InputPoint::attention_input).norm, seen[1].at(nn::InputPoint::attention_input).norm), 1e-6);
  SetUp();
  run({"record"});
  run({"halve", "record-sequential"});
  EXPECT_GT(relative_error(seen[3].at(nn::InputPoint::attention_input).norm, seen[1].at(nn::InputPoint::attention_input).norm), 1e-3);
}

TEST_F(ChainTest, ChainsThatBeginAlikeShareTheirCalibration) {
  const auto cache = std::make_shared<CalibrationCache>();
  for (int i = 0; i < 2; ++i) {
    Workbench workbench = bench();
    workbench.cache = cache;
    run_chain(workbench, parse_chain(table_, {"record"}));
  }
  ASSERT_EQ(seen.size(), 4u);
  EXPECT_TRUE(at::equal(seen[3].at(nn::InputPoint::mlp_output).hessian, seen[1].at(nn::InputPoint::mlp_output).hessian));
  const CalibrationCache::Blocks* kept = cache->find("", kNeedsHessian);
  ASSERT_NE(kept, nullptr);
  EXPECT_EQ(seen[3].at(nn::InputPoint::mlp_output).hessian.data_ptr(), kept->at(1).at(nn::InputPoint::mlp_output).hessian.data_ptr());
  EXPECT_EQ(cache->find("halve", kNeedsHessian), nullptr);
}

TEST_F(ChainTest, ScalingInputsLeavesTheFunctionOfTheModelUnchanged) {
  const Tensor before = logits();
  run({"smooth"});
  EXPECT_LT(relative_error(logits(), before), 1e-5);
}

TEST_F(ChainTest, StepsComposeOnMaskedAndFactoredWeights) {
  const Tensor before = logits();
  run({"factor"});
  EXPECT_LT(relative_error(logits(), before), 5e-3);  // factors are stored in float16
  run({"grid"});
  EXPECT_LT(relative_error(logits(), before), 0.1);
  EXPECT_EQ(loaded_.model->blocks[0].gate.describe(), "rank 40 (int8 per row x int8 per row)");

  SetUp();
  run({"mask"});
  const Tensor masked = logits();
  run({"grid"});
  EXPECT_LT(relative_error(logits(), masked), 0.1);
  const auto* kind = dynamic_cast<nn::SparseKind*>(loaded_.model->blocks[0].down.kinds()[0].get());
  ASSERT_NE(kind, nullptr);
  EXPECT_TRUE(kind->dense().masked_select(kind->mask().logical_not()).eq(0).all().item<bool>());
  EXPECT_GT(kind->mask().to(at::kFloat).mean().item<double>(), 0.3);
}

TEST_F(ChainTest, StatisticsCarryThroughTheFirstFactor) {
  run({"factor"});
  static Tensor carried, expected;
  StepTable table({StepRow{"look",
                           "",
                           "test",
                           "",
                           "",
                           {},
                           Step{StepScope::block, StepEffect::transform, all_needs,
                                [](BlockContext& context, const Options&) {
                                  std::vector<Matrix> matrices = context.matrices_at(nn::InputPoint::mlp_output);
                                  carried = matrices.at(1).statistics().hessian;
                                  const Tensor x = at::matmul(context.statistics(nn::InputPoint::mlp_output).sample, matrices.at(0).weight.t());
                                  expected = at::matmul(x.t(), x) / static_cast<double>(x.size(0));
                                },
                                nullptr, false},
                           {},
                           "test"}});
  Workbench workbench(loaded_, {"test", tokens_}, {.sequences = 6, .sequence_length = 16, .sample_sequences = 6}, 1);
  run_chain(workbench, parse_chain(table, {"look"}));
  EXPECT_LT(relative_error(carried, expected), 1e-4);
}

TEST_F(ChainTest, OrdersThatMakeNoSenseAreRefusedWithTheReason) {
  EXPECT_NO_THROW(parse_chain(table_, {"smooth", "factor", "mask", "grid"}));
  try {
    parse_chain(table_, {"grid", "mask"});
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "mask cannot follow grid: it would turn the quantized weights back into floats; put mask first");
  }
  EXPECT_THROW(parse_chain(table_, {"mask", "factor"}), Error);
  EXPECT_THROW(parse_chain(table_, {"grid", "grid"}), Error);
  EXPECT_THROW(parse_chain(table_, {"gird"}), Error);
}

TEST_F(ChainTest, TooShortACalibrationTextIsRefusedBeforeAnyWork) {
  Workbench workbench(loaded_, {"short.txt", random_tokens(95, 61)}, {.sequences = 6, .sequence_length = 16}, 1);
  EXPECT_THROW(run_chain(workbench, parse_chain(table_, {"record"})), Error);
}

}  // namespace
}  // namespace frugal::chain
