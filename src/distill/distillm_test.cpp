// What DistiLLM adds to a distillation: when its rows are the student's, of now or of before, and that a run which goes on has it all.
#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include "base/error.h"
#include "distill/distillation.h"
#include "oracle.h"
#include "tiny_model.h"

namespace frugal::distill {
namespace {

using ::testing::HasSubstr;

WrittenRow row(int32_t number) { return {{number, number, number}, 1}; }

void end_step(AdaptiveReplay& replay, int64_t step) {
  replay.add_gradients();
  replay.after_step(step);
}

TEST(AdaptiveReplay, TheThresholdGrowsOnlyWhenTheHeldOutLossHasRisenSinceItGrew) {
  AdaptiveReplay replay(4, 8, 0.85, 0.1);
  EXPECT_FALSE(replay.knows_loss());
  replay.evaluated(9);
  EXPECT_DOUBLE_EQ(replay.threshold(), 0.85) << "there is nothing to compare with";
  replay.set_loss(2);
  const std::pair<double, double> losses[] = {{2.05, 0.85}, {1.5, 0.85}, {1.7, 0.85}, {2.1, 0.95}, {2.15, 0.95}, {2.25, 1.0}, {9, 1.0}};
  for (const auto& [loss, threshold] : losses) {
    replay.evaluated(loss);
    EXPECT_DOUBLE_EQ(replay.threshold(), threshold) << loss;
  }
}

TEST(AdaptiveReplay, TheStudentWritesUntilTheBufferIsFullAndLessWithEachStepAfter) {
  AdaptiveReplay replay(3, 8, 0.5, 0.1);
  replay.begin(10);
  EXPECT_EQ(replay.source(0.5), RowSource::data);
  EXPECT_EQ(replay.source(0.49), RowSource::student) << "the buffer is empty";
  replay.add({row(1), row(2), {{5, 5}, 2}});
  EXPECT_EQ(replay.add_gradients().at("distillation/buffer").get<int64_t>(), 2) << "a row without an answer teaches nothing";
  replay.after_step(0);
  EXPECT_EQ(replay.source(0.49), RowSource::student) << "there is room";
  replay.add({row(3), row(4)});
  end_step(replay, 1);
  EXPECT_EQ(replay.source(0.34), RowSource::student);  // 0.5 (1 - 3 / 10)
  EXPECT_EQ(replay.source(0.36), RowSource::buffer);
  replay.after_step(8);
  EXPECT_EQ(replay.source(0), RowSource::buffer) << "the last step writes nothing";
  Rng rng(testing::test_seed());
  std::vector<int32_t> drawn;
  for (const WrittenRow& one : replay.draw(5, rng)) {
    EXPECT_EQ(one.tokens.size(), 3u);
    EXPECT_EQ(one.prompt, 1u);
    drawn.push_back(one.tokens[0]);
  }
  EXPECT_THAT(drawn, ::testing::UnorderedElementsAre(2, 3, 4)) << "the oldest has gone, none comes twice";
}

TEST(AdaptiveReplay, AStepThatDoesNotEndLeavesNothing) {
  AdaptiveReplay replay(3, 8, 0.5, 0.1);
  const auto states = [&] {
    std::vector<at::Tensor> all;
    replay.for_each_state([&](const std::string&, at::Tensor& state) { all.push_back(state.clone()); });
    return all;
  };
  const auto before = states();
  replay.add({row(1)});
  const auto amid = states();
  end_step(replay, 0);
  const auto after = states();
  for (size_t i = 0; i < before.size(); ++i) EXPECT_TRUE(at::equal(before[i], amid[i]));
  EXPECT_FALSE(at::equal(before[0], after[0]));
}

TEST(Distillm, WantsHeldOutDataAndABufferOfAMicroBatch) {
  const nn::Model model = testing::tiny_model({});
  data::Dataset data;
  data.tokens = {1, 2, 3};
  data.trained = {0, 1, 1};
  data.offsets.push_back(3);
  const auto& table_row = distill_table().at("distillm");
  const auto made = [&](const data::Dataset* held_out, const char* capacity) {
    train::LanguageModelingOptions options;
    options.batches = {.seed = 1, .micro_batch_size = 4, .sequence_len = 16, .sample_packing = false};
    const auto teacher = std::make_shared<nn::Model>(testing::tiny_model({}));
    Distillation(model, {teacher}, data, held_out, std::move(options), table_row.function(Options("distillm", table_row.options, {{"capacity", capacity}})),
                 {7});
  };
  const auto message = [&](const data::Dataset* held_out, const char* capacity) -> std::string {
    try {
      made(held_out, capacity);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::invalid_input);
      return error.what();
    }
    return "";
  };
  EXPECT_THAT(message(nullptr, "4"), HasSubstr("held-out"));
  EXPECT_THAT(message(&data, "3"), HasSubstr("capacity"));
  EXPECT_EQ(message(&data, "4"), "");
}

}  // namespace
}  // namespace frugal::distill
