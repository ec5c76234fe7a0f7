#include "train/layer_sampler.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

#include "oracle.h"
#include "train/data_parallel.h"
#include "train/trainer_test_support.h"

namespace frugal::train {
namespace {

std::vector<Parameter> blocks_and_more(int blocks) {
  std::vector<Parameter> parameters;
  const auto add = [&](const std::string& name, int64_t size) {
    parameters.push_back({name, at::arange(size, at::kFloat).mul_(0.1).reshape({1, size}).requires_grad_()});
  };
  add("model.embed_tokens.weight", 5);
  for (int i = 0; i < blocks; ++i) {
    add(fmt::format("model.layers.{}.up.weight", i), 3);
    add(fmt::format("model.layers.{}.norm.weight", i), 2);
  }
  add("model.norm.weight", 4);
  return parameters;
}

const MethodRow<OptimizerFactory>& row_of(const std::string& id) { return optimizer_table().at(id); }

std::unique_ptr<LayerSampler> sampler(const std::vector<Parameter>& parameters, const LayerSampling& sampling, const std::string& step = "adamw") {
  const StepText text = parse_step(step);
  return std::make_unique<LayerSampler>(parameters, sampling, row_of(text.id), Options(text.id, row_of(text.id).options, text.options));
}

TEST(LayerSampler, EveryDrawIsOfSoManyBlocksAllOfThemAlikeAndOfSeedAndStepAlone) {
  const std::vector<int64_t> blocks = {0, 1, 2, 3, 4, 5, 6};
  const uint64_t seed = testing::test_seed();
  std::map<int64_t, int> times;
  constexpr int kDraws = 7000;
  for (int64_t draw = 0; draw < kDraws; ++draw) {
    const LayerSampling sampling{2, 5, seed};
    const std::vector<int64_t> layers = sampled_layers(blocks, sampling, 5 * draw);
    ASSERT_EQ(layers.size(), 2u);
    ASSERT_LT(layers[0], layers[1]);
    EXPECT_EQ(sampled_layers(blocks, sampling, 5 * draw + 4), layers) << "within an interval";
    for (const int64_t layer : layers) ++times[layer];
  }
  const double mean = kDraws * 2.0 / 7, deviation = std::sqrt(kDraws * (2.0 / 7) * (5.0 / 7));
  for (const int64_t block : blocks) EXPECT_NEAR(times[block], mean, 5 * deviation) << block;
}

// Algorithm 1 by hand: one AdamW for what trains always, a new one for the blocks of each draw.
TEST(LayerSampler, StepsAreThoseOfANewOptimizerForEachDrawAndOneForTheRest) {
  const LayerSampling sampling{2, 3, testing::test_seed()};
  const std::vector<Parameter> ours = blocks_and_more(5), theirs = blocks_and_more(5);
  const auto optimizer = sampler(ours, sampling);
  const auto adamw = [](const std::vector<Parameter>& parameters) {
    return row_of("adamw").function(parameters, Options("adamw", row_of("adamw").options, {}));
  };
  std::vector<Parameter> always;
  std::copy_if(theirs.begin(), theirs.end(), std::back_inserter(always), [](const Parameter& p) { return block_of(p.name) == DataParallel::kOutside; });
  const auto rest = adamw(always);
  std::unique_ptr<Optimizer> drawn;
  std::set<int64_t> seen;
  for (int64_t step = 0; step < 20; ++step) {
    const std::vector<int64_t> layers = sampled_layers({0, 1, 2, 3, 4}, sampling, step);
    const auto trains = [&](const Parameter& p) {
      return block_of(p.name) == DataParallel::kOutside || std::find(layers.begin(), layers.end(), block_of(p.name)) != layers.end();
    };
    if (step % 3 == 0) {
      std::vector<Parameter> chosen;
      std::copy_if(theirs.begin(), theirs.end(), std::back_inserter(chosen),
                   [&](const Parameter& p) { return trains(p) && block_of(p.name) != DataParallel::kOutside; });
      drawn = adamw(chosen);
    }
    seen.insert(layers.begin(), layers.end());
    for (size_t i = 0; i < ours.size(); ++i) {
      EXPECT_EQ(ours[i].tensor.requires_grad(), trains(ours[i])) << ours[i].name;
      const Tensor gradient = at::randn(ours[i].tensor.sizes());
      ours[i].tensor.mutable_grad() = trains(ours[i]) ? gradient : Tensor();
      theirs[i].tensor.mutable_grad() = ours[i].tensor.grad();
    }
    optimizer->step(0.1);
    rest->step(0.1);
    drawn->step(0.1);
    EXPECT_EQ(optimizer->state_bytes(), rest->state_bytes() + drawn->state_bytes());
    optimizer->prepare_step(step + 1);
    for (size_t i = 0; i < ours.size(); ++i) EXPECT_TRUE(at::equal(ours[i].tensor, theirs[i].tensor)) << "step " << step << ", " << ours[i].name;
  }
  EXPECT_GT(seen.size(), 3u);
}

using LayerSamplerRunTest = TrainerTest;

TEST_F(LayerSamplerRunTest, AStoppedRunIsResumedToTheBitWhereverADrawIs) {
  for (const std::string step : {"adamw", "lomo", "adam8bit"}) {
    const auto run = [&](const std::string& output, bool resume, int64_t stop) {
      const std::vector<Parameter> parameters = blocks_and_more(5);
      const auto optimizer = sampler(parameters, {2, 4, 9}, step);
      Quadratic objective(parameters);
      objective.before = [&](int64_t call) {
        if (call == stop) request_stop();
        stop_point();
      };
      TestOptions test = options_for(output);
      test.options.schedule = Options("schedule", schedule_options(), {});
      test.options.gradient_accumulation_steps = 1;
      const RunFolder folder(output, resume ? Existing::resume : Existing::refuse);
      const TrainResult result = train(objective, parameters, *optimizer, folder, test.options, Json::object());
      clear_stop();
      EXPECT_EQ(result.stopped, stop > 0);
      std::vector<Tensor> end;
      for (const Parameter& parameter : parameters) end.push_back(parameter.tensor.detach());
      optimizer->for_each_state([&](const std::string&, Tensor& state) { end.push_back(state); });
      return end;
    };
    const std::vector<Tensor> whole = run(folder_ / ("whole" + step), false, 0);
    for (const int64_t stop : {3, 4, 5, 8, 9, 13}) {
      const std::string output = folder_ / fmt::format("{}{}", step, stop);
      run(output, false, stop);
      const std::vector<Tensor> resumed = run(output, true, 0);
      ASSERT_EQ(resumed.size(), whole.size());
      for (size_t i = 0; i < whole.size(); ++i) EXPECT_TRUE(at::equal(resumed[i], whole[i])) << step << " stopped at " << stop << ", tensor " << i;
      EXPECT_EQ(logged(output), logged(folder_ / ("whole" + step)));
    }
  }
}

TEST(LayerSampler, WhatCannotTrainSoIsRefusedByName) {
  const std::vector<Parameter> parameters = blocks_and_more(3);
  EXPECT_NE(io::outcome_of([&] { sampler(parameters, {4, 1, 0}); }).find("4 of the model's 3 blocks"), std::string::npos);
  EXPECT_NE(io::outcome_of([&] { sampler(parameters, {1, 1, 0}, "mezo"); }).find("mezo"), std::string::npos);
  EXPECT_NE(io::outcome_of([&] { sampler(parameters, {1, 1, 0}, "schedule-free"); }).find("schedule-free"), std::string::npos);
}

}  // namespace
}  // namespace frugal::train
