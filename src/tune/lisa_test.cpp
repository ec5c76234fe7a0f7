#include "tune/lisa.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "oracle.h"
#include "tiny_model.h"
#include "train/data_parallel.h"
#include "train/full_parameters.h"
#include "train/test_tools.h"

namespace frugal::tune {
namespace {

using at::Tensor;

// Gradients of what trains are those of full tuning; what is frozen has none and stays, and another draw moves others.
TEST(Lisa, ADrawnBlockLearnsAsInFullTuningAndTheOthersStay) {
  Rng rng(testing::test_seed());
  nn::Model model = testing::tiny_model({.vocab = 97, .blocks = 4}), whole = model;
  const std::vector<train::Parameter> parameters = train::all_parameters(model), all = train::all_parameters(whole);
  const data::Dataset dataset = train::random_dataset(rng, 97, 3, 20);
  const LayerSamplingRow& row = layer_sampling_table().at("lisa");
  const Options options(row.id, row.options, {{"activated_layers", "1"}, {"interval_steps", "2"}});
  const auto& adamw = train::optimizer_table().at("adamw");
  train::LayerSampler sampler(parameters, row.function(options, testing::test_seed()), adamw, Options("adamw", adamw.options, {}));
  train::LanguageModeling objective(model, dataset, nullptr, {}), of_whole(whole, dataset, nullptr, {});
  for (int64_t step = 0; step < 6; ++step) {
    train::clear(parameters);
    train::clear(all);
    const train::MicroBatch batch{{0, 1, 2}, 0, 1};
    EXPECT_NEAR(objective.accumulate(batch, 1, 0), of_whole.accumulate(batch, 1, 0), 1e-4);
    std::vector<Tensor> before;
    int64_t frozen = 0;
    for (size_t i = 0; i < parameters.size(); ++i) {
      const Tensor& tensor = parameters[i].tensor;
      before.push_back(tensor.detach().clone());
      EXPECT_EQ(tensor.grad().defined(), tensor.requires_grad()) << parameters[i].name;
      frozen += tensor.requires_grad() ? 0 : 1;
      if (tensor.requires_grad()) {
        EXPECT_LT(models::relative_difference(tensor.grad(), all[i].tensor.grad()), 1e-4) << parameters[i].name;
      }
      if (train::block_of(parameters[i].name) == train::DataParallel::kOutside) {
        EXPECT_TRUE(tensor.requires_grad()) << parameters[i].name;
      }
    }
    EXPECT_GT(frozen, 0);
    sampler.step(1e-2);
    const at::NoGradGuard no_grad;
    for (size_t i = 0; i < parameters.size(); ++i) {
      EXPECT_EQ(at::equal(before[i], parameters[i].tensor), !parameters[i].tensor.requires_grad()) << parameters[i].name;
      Tensor same = all[i].tensor;
      same.copy_(parameters[i].tensor);
    }
    sampler.prepare_step(step + 1);
  }
}

}  // namespace
}  // namespace frugal::tune
