// LOMO: the update, and what a step within backward may not change or keep.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "models/test_tools.h"
#include "oracle.h"
#include "tiny_model.h"
#include "train/full_parameters.h"
#include "train/fused_backward.h"
#include "train/optimizer_test_support.h"
#include "train/test_tools.h"
#include "train/trainer_test_support.h"

namespace frugal::train {
namespace {

TEST(Lomo, EqualsSgdOfTorchAndWithASecondMomentAdafactorOfTransformers) {
  expect_like_oracle({{"lomo", "sgd"},
                      {"lomo:weight_decay=0.1", "sgd weight_decay=0.1"},
                      {"lomo:second_moment=true", "adafactor relative_step=False scale_parameter=True"},
                      {"lomo:second_moment=true,weight_decay=0.2", "adafactor relative_step=False scale_parameter=True weight_decay=0.2"}});
}

TEST(Lomo, NumbersOfAGradientAreClippedForTheUpdateOnly) {
  at::manual_seed(testing::test_seed());
  const Parameter parameter{"w", at::randn({30, 7}).requires_grad_()};
  const Tensor gradient = at::randn({30, 7}), before = parameter.tensor.detach().clone();
  parameter.tensor.mutable_grad() = gradient.clone();
  make("lomo:clip_grad_value=0.5", {parameter})->step(0.25);
  EXPECT_TRUE(at::allclose(parameter.tensor.detach(), before - 0.25 * gradient.clamp(-0.5, 0.5)));
  EXPECT_TRUE(at::equal(parameter.tensor.grad(), gradient));
}

// What a run of a small model ends with.
struct Ended {
  std::vector<Tensor> weights;
  double loss = 0;
};

Ended run_of(const std::string& name, const std::string& optimizer, double max_grad_norm, int64_t recompute_every, at::ScalarType activations = at::kFloat) {
  Rng rng(testing::test_seed());
  const nn::LoadedModel loaded = models::Loader().load(models::TinyModels::get().path(name));
  const data::Dataset dataset = random_dataset(rng, loaded.model->spec.vocab, 12, 24);
  const std::vector<Parameter> parameters = all_parameters(*loaded.model);
  LanguageModelingOptions options;
  options.batches = {1, 3, 24, false};
  options.recompute.every = recompute_every;
  options.activations = activations;
  LanguageModeling objective(*loaded.model, dataset, &dataset, options);
  TrainerOptions trainer;
  trainer.num_epochs = 3;
  trainer.learning_rate = 0.3;
  trainer.max_grad_norm = max_grad_norm;
  trainer.scale_loss = activations == at::kHalf;
  trainer.schedule = Options("schedule", schedule_options(), {});
  const auto made = make(optimizer, parameters);
  Ended ended;
  ended.loss = train(objective, parameters, *made, trainer).eval_loss;
  for (const Parameter& parameter : parameters) {
    ended.weights.push_back(parameter.tensor.detach());
    EXPECT_FALSE(parameter.tensor.grad().defined()) << parameter.name;
  }
  return ended;
}

// Tied embedding and not; with recomputed blocks, whose backward is one of its own.
TEST(Lomo, ARunIsSgdsToTheBitAndToRoundingWhereTheNormIsClipped) {
  for (const std::string& name : models::TinyModels::get().names()) {
    if (name != "llama" && name != "gemma3" && name != "qwen3") continue;
    for (const int64_t every : {0, 1}) {
      const Ended sgd = run_of(name, "sgd:weight_decay=0.1", 0, every), lomo = run_of(name, "lomo:weight_decay=0.1", 0, every);
      EXPECT_EQ(lomo.loss, sgd.loss);
      for (size_t i = 0; i < sgd.weights.size(); ++i) EXPECT_TRUE(at::equal(lomo.weights[i], sgd.weights[i])) << name << ", tensor " << i;
    }
    for (const at::ScalarType activations : {at::kFloat, at::kHalf}) {
      const Ended sgd = run_of(name, "sgd", 0.05, 0, activations), lomo = run_of(name, "lomo", 0.05, 0, activations);
      for (size_t i = 0; i < sgd.weights.size(); ++i) EXPECT_LT(models::relative_difference(lomo.weights[i], sgd.weights[i]), 1e-5) << name << ", tensor " << i;
    }
    EXPECT_TRUE(std::isfinite(run_of(name, "lomo:second_moment=true", 0, 0).loss));
  }
}

// Counts the gradients that are there when one moves its parameter.
class Counting : public Optimizer {
 public:
  explicit Counting(const std::vector<Parameter>& parameters) : parameters_(parameters) {}
  void step(double) override {}
  void step_of(size_t, double) override {
    ++steps;
    most = std::max(most, std::count_if(parameters_.begin(), parameters_.end(), [](const Parameter& p) { return p.tensor.grad().defined(); }));
  }
  void for_each_state(const std::function<void(const std::string&, Tensor&)>&) override {}
  int64_t most = 0;
  size_t steps = 0;

 private:
  const std::vector<Parameter>& parameters_;
};

TEST(FusedBackward, OneGradientLivesBesideTheHeadsAndEachMovesItsParameterOnce) {
  Rng rng(testing::test_seed());
  for (const std::string name : {"llama", "gemma3"}) {
    const nn::LoadedModel loaded = models::Loader().load(models::TinyModels::get().path(name));
    const data::Dataset dataset = random_dataset(rng, loaded.model->spec.vocab, 4, 24);
    const std::vector<Parameter> parameters = all_parameters(*loaded.model);
    for (const int64_t every : {0, 1}) {
      LanguageModelingOptions options;
      options.recompute.every = every;
      LanguageModeling objective(*loaded.model, dataset, nullptr, options);
      Counting counting(parameters);
      const MicroBatch batch{{0, 1, 2, 3}, 0, 1};
      const double norm = FusedBackward(parameters, counting).step([&] { return objective.accumulate(batch, 1, 0); }, 0, 1);
      EXPECT_EQ(counting.steps, parameters.size());
      EXPECT_LE(counting.most, 2);
      objective.accumulate(batch, 1, 0);
      EXPECT_NEAR(gradient_norm(parameters), norm, 1e-9 * norm);
      clear(parameters);
    }
  }
}

TEST(FusedBackward, AWeightThatGetsASecondGradientIsRefused) {
  const std::vector<Parameter> parameters = {{"shared", at::ones({3}).requires_grad_()}};
  Counting counting(parameters);
  const auto twice = [&] {
    (parameters[0].tensor * 2).sum().backward();
    (parameters[0].tensor * 3).sum().backward();
    return 0.0;
  };
  EXPECT_NE(io::outcome_of([&] { FusedBackward(parameters, counting).step(twice, 0.1, 1); }).find("shared gets more than one gradient"), std::string::npos);
}

class LomoRunTest : public TrainerTest {
 protected:
  TestOptions options(const std::string& output, double max_grad_norm = 1) {
    TestOptions test = options_for(folder_ / output);
    test.options.gradient_accumulation_steps = 1;
    test.options.max_grad_norm = max_grad_norm;
    return test;
  }
};

TEST_F(LomoRunTest, AStoppedRunIsResumedToTheBit) {
  for (const std::string optimizer : {"lomo", "lomo:second_moment=true"}) {
    for (const double norm : {0.0, 1.0}) {
      const std::string name = fmt::format("{}{}", optimizer.size(), norm);
      Process whole(optimizer);
      whole.run(options("whole" + name, norm));
      for (const int64_t stop : {1, 9, 20}) {
        Process first(optimizer), second(optimizer);
        first.objective.before = [&](int64_t call) {
          if (call == stop) request_stop();
          stop_point();
        };
        TestOptions test = options(fmt::format("{}-{}", name, stop), norm);
        EXPECT_TRUE(first.run(test).stopped);
        clear_stop();
        test.resume = true;
        second.run(test);
        EXPECT_EQ(second.state(), whole.state());
        EXPECT_EQ(logged(test.output), logged(folder_ / ("whole" + name)));
      }
    }
  }
}

TEST_F(LomoRunTest, WhatIsNotFiniteChangesNothingOrEndsTheRunByName) {
  const double bad = std::numeric_limits<double>::quiet_NaN();
  for (const double norm : {0.0, 1.0}) {
    Process process("lomo");
    std::string before;
    const int64_t passes = norm > 0 ? 2 : 1, call_of_third = 2 * passes + 1;
    process.objective.before = [&](int64_t call) {
      if (call == call_of_third) before = process.state();
      if (call == call_of_third + 1) EXPECT_EQ(process.state(), before);
      process.objective.factor = call == call_of_third ? bad : 1;
    };
    EXPECT_EQ(process.run(options(fmt::format("one{}", norm), norm)).skipped, 1);
  }
  // A gradient that overflows after others have moved.
  const std::vector<Parameter> parameters = {{"a", at::ones({3}).requires_grad_()}, {"b", at::ones({3}).requires_grad_()}};
  const auto lomo = make("lomo", parameters);
  const auto backward = [&](size_t first) {
    return [&, first] {
      (parameters[first].tensor * 2).sum().backward();
      (parameters[1 - first].tensor * (first == 0 ? bad : 1)).sum().backward();
      return 1.0;
    };
  };
  EXPECT_NE(io::outcome_of([&] { FusedBackward(parameters, *lomo).step(backward(0), 0.1, 1); }).find("1 of 2 parameters had moved"), std::string::npos);
  EXPECT_FALSE(std::isfinite(FusedBackward(parameters, *lomo).norm_of([&] { backward(0)(); })));
}

TEST_F(LomoRunTest, WhatItCannotDoIsRefusedWithTheOptionAndTheReason) {
  struct Hook : StepHook {
  } hook;
  const auto outcome = [&](const std::function<void(TrainerOptions&)>& change) {
    Process process("lomo");
    TestOptions test = options("refused");
    change(test.options);
    return io::outcome_of([&] { train(process.objective, process.parameters, *process.optimizer, test.options); });
  };
  EXPECT_NE(outcome([](TrainerOptions& o) { o.gradient_accumulation_steps = 2; }).find("gradient_accumulation_steps"), std::string::npos);
  EXPECT_NE(outcome([&](TrainerOptions& o) { o.hook = &hook; }).find("method"), std::string::npos);
  const auto blind = [](TrainerOptions& o) { o.max_grad_norm = 0; };
  EXPECT_NE(outcome([&](TrainerOptions& o) { blind(o), o.scale_loss = true; }).find("fp16"), std::string::npos);
  EXPECT_NE(outcome([&](TrainerOptions& o) { blind(o), o.spikes = SpikePolicy::skip; }).find("spike_policy"), std::string::npos);
}

}  // namespace
}  // namespace frugal::train
