// A model that ranks share, which are threads here, against the whole one; runs of processes: tests/test_dist.py.
#include "train/model_parallel.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "base/error.h"
#include "dist/test_ranks.h"
#include "tiny_model.h"
#include "train/clip.h"
#include "train/cross_entropy.h"
#include "train/data_parallel.h"
#include "train/full_parameters.h"
#include "train/hidden_states.h"

namespace frugal::train {
namespace {

using at::Tensor;

nn::Model shared_model(testing::TinyModelOptions options = {}) {
  options.heads = 4;
  options.kv_heads = 2;
  return testing::tiny_model(options);
}

nn::Batch some_batch() { return nn::Batch::equal_parts(testing::random_tokens(37, 61), 14); }

// Next tokens, some of which are not learned.
Tensor some_targets(const nn::Batch& batch) {
  std::vector<int64_t> targets(batch.tokens.begin() + 1, batch.tokens.end());
  targets.push_back(3);
  for (size_t i = 0; i < targets.size(); i += 5) targets[i] = kIgnored;
  return at::tensor(targets, at::kLong);
}

double backward(const nn::Model& model, const nn::Batch& batch, const Tensor& targets, const Recompute& recompute) {
  const Tensor loss = cross_entropy(model, hidden_states(model, batch, recompute), targets, 0.25);
  torch::autograd::backward({loss}, {});
  return loss.item<double>();
}

void expect_near(const Tensor& got, const Tensor& want, const std::string& what) {
  ASSERT_EQ(got.sizes(), want.sizes()) << what;
  EXPECT_LE((got - want).abs().max().item<double>(), 1e-5 * want.abs().max().item<double>() + 1e-7) << what;
}

TEST(TensorParallel, LossAndEveryGradientAreThoseOfOneProcess) {
  for (const auto& options : {testing::TinyModelOptions{}, {.tied = false, .biases = true}, {.qk_norm = true, .post_norms = true}}) {
    for (const double softcap : {0.0, 5.0}) {
      nn::Model made = shared_model(options);
      made.spec.logit_softcap = softcap;
      const nn::Batch batch = some_batch();
      const Tensor targets = some_targets(batch);
      nn::Model alone = made;
      std::map<std::string, Tensor> want;
      const auto parameters = all_parameters(alone);
      const double loss = backward(alone, batch, targets, {});
      for (const Parameter& parameter : parameters) want[parameter.name] = parameter.tensor.grad();
      const double norm = gradient_norm(parameters);
      const Tensor logits = alone.head.dense().matmul(hidden_states(alone, batch).t()).detach();
      dist::on_ranks(2, [&](dist::ProcessGroup& world) {
        nn::Model model = made;
        std::vector<Parameter> parts = all_parameters(model);
        const ModelParallel parallel(world, {.tensor = 2}, model, parts);
        EXPECT_EQ(parts.size(), want.size());
        const auto cuts = tensor_parallel_cuts(made);
        Recompute recompute;
        recompute.inputs = parallel.input_tap();
        for (const int64_t every : {0, 1}) {
          recompute.every = every;
          for (const Parameter& part : parts) part.tensor.mutable_grad() = Tensor();
          EXPECT_NEAR(backward(model, batch, targets, recompute) / loss, 1, 1e-5);
          for (const Parameter& part : parts) {
            const Tensor& whole = want.at(part.name);
            const auto cut = cuts.find(part.name);
            const Range range = cut == cuts.end() ? Range() : part_of(whole.size(cut->second), world.rank(), 2);
            expect_near(part.tensor.grad(), cut == cuts.end() ? whole : whole.narrow(cut->second, range.begin, range.count()), part.name);
          }
          EXPECT_NEAR(parallel.gradient_norm(parts) / norm, 1, 1e-5) << "what is on all ranks counts once";
        }
        const Range tokens = part_of(61, world.rank(), 2);
        recompute.every = 0;
        expect_near(model.head.dense().matmul(hidden_states(model, batch, recompute).t()).detach(), logits.narrow(0, tokens.begin, tokens.count()), "logits");
      });
    }
  }
}

TEST(TensorParallel, WhatHasNoEvenPartIsNamed) {
  const auto says = [](const nn::ModelSpec& spec, int size) {
    try {
      check_tensor_parallel(spec, size);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::unsupported);
      return std::string(error.what());
    }
    return std::string();
  };
  const nn::ModelSpec spec = shared_model().spec;
  EXPECT_EQ(says(spec, 2), "");
  EXPECT_NE(says(spec, 3).find("4 heads of block 0"), std::string::npos);
  EXPECT_NE(says(spec, 4).find("2 key-value heads of block 0"), std::string::npos);
  EXPECT_NE(says(shared_model({.intermediate = 73}).spec, 2).find("73 channels"), std::string::npos);
  EXPECT_NE(says(shared_model({.sub_norms = true}).spec, 2).find("sub_norms"), std::string::npos);
  EXPECT_THROW(ModelParallel::check(spec, {.tensor = 2}, 3), Error);
  EXPECT_THROW(ModelParallel::check(spec, {.pipeline = 3}, 3), Error);
}

// What a rank does with its parts ends in the whole, and what is in the whole ends in the parts.
TEST(ModelParallel, PartsBecomeTheWholeAndTheWholeParts) {
  for (const ModelParallelSize size : {ModelParallelSize{.tensor = 2}, ModelParallelSize{.pipeline = 2}, ModelParallelSize{.tensor = 2, .pipeline = 2}}) {
    for (const bool tied : {true, false}) {
      const nn::Model made = shared_model({.tied = tied, .qk_norm = true});
      nn::Model alone = made;
      std::map<std::string, Tensor> want;
      for (const Parameter& parameter : all_parameters(alone)) want[parameter.name] = parameter.tensor.detach();
      const nn::Batch batch = some_batch();
      const Tensor hidden = hidden_states(alone, batch).detach();
      dist::on_ranks(2 * size.ranks(), [&](dist::ProcessGroup& world) {
        nn::Model model = made;
        std::vector<Parameter> parameters = all_parameters(model);
        ModelParallel parallel(world, size, model, parameters);
        const at::NoGradGuard no_grad;
        int64_t held = 0;
        for (const Parameter& whole : parallel.whole()) held += static_cast<int64_t>(whole.tensor.storage().nbytes());
        int64_t parts = 0;
        std::map<std::string, Tensor> state;
        for (const Parameter& part : parameters) {
          parts += static_cast<int64_t>(part.tensor.nbytes());
          state["exp_avg." + part.name] = part.tensor.clone();
          state["step." + part.name] = at::full({1}, 7);
        }
        int64_t all = 0;
        for (const auto& [name, tensor] : want) all += static_cast<int64_t>(tensor.nbytes());
        EXPECT_LT(parts, all * 0.8) << "a rank has a part";
        EXPECT_LT(held, all * 0.8) << "and lets the rest go";
        if (!parallel.data().leads()) return;  // of copies, one is gathered
        const auto gathered = parallel.gather_state(state);
        for (const Parameter& part : parameters) part.tensor.mul_(2);
        parallel.come_to_leader();
        if (world.leads()) {
          EXPECT_EQ(gathered.size(), 2 * want.size());
          for (const auto& [name, tensor] : want) {
            EXPECT_TRUE(at::equal(gathered.at("exp_avg." + name), tensor)) << name;
            EXPECT_EQ(gathered.at("step." + name).numel(), 1);
          }
          for (const Parameter& whole : parallel.whole()) {
            EXPECT_TRUE(at::equal(whole.tensor, 2 * want.at(whole.name))) << whole.name;
            whole.tensor.detach().div_(2);
          }
          expect_near(hidden_states(model, batch), hidden, "the model is whole");
        }
        parallel.scatter();
        parallel.go_from_leader();
        const auto scattered = parallel.scatter_state(gathered);
        EXPECT_EQ(scattered.size(), state.size());
        for (const Parameter& part : parameters) {
          EXPECT_TRUE(at::equal(part.tensor, state.at("exp_avg." + part.name))) << part.name;
          EXPECT_TRUE(at::equal(scattered.at("exp_avg." + part.name), state.at("exp_avg." + part.name))) << part.name;
          EXPECT_EQ(scattered.at("step." + part.name)[0].item<int>(), 7);
        }
      });
    }
  }
}

}  // namespace
}  // namespace frugal::train
