// Stages of a pipeline, which are threads here, against one process; runs of processes: tests/test_dist.py.
#include "train/pipeline.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <map>

#include "dist/test_ranks.h"
#include "tiny_model.h"
#include "train/data_parallel.h"
#include "train/full_parameters.h"
#include "train/test_tools.h"

namespace frugal::train {
namespace {

using at::Tensor;

TEST(Pipeline, OneForwardOneBackwardHasTheBubbleOfThePaper) {
  constexpr double kForward = 1, kBackward = 2;
  for (int stages = 1; stages <= 5; ++stages) {
    for (size_t count = 1; count <= 9; ++count) {
      std::vector<std::vector<PipelinePass>> left;
      for (int s = 0; s < stages; ++s) left.push_back(one_forward_one_backward(s, stages, count));
      std::map<std::pair<bool, std::pair<int, size_t>>, double> ended;  // {forward, {stage, micro-batch}}
      std::vector<double> free(static_cast<size_t>(stages));
      std::vector<size_t> next(static_cast<size_t>(stages)), flying(static_cast<size_t>(stages));
      for (bool moved = true; moved;) {
        moved = false;
        for (int s = 0; s < stages; ++s) {
          const auto at = static_cast<size_t>(s);
          if (next[at] == left[at].size()) continue;
          const PipelinePass pass = left[at][next[at]];
          const int before = pass.is_forward ? s - 1 : s + 1;  // the stage that it waits for
          double begin = free[at];
          if (before >= 0 && before < stages) {
            const auto found = ended.find({pass.is_forward, {before, pass.micro_batch}});
            if (found == ended.end()) continue;
            begin = std::max(begin, found->second);
          }
          free[at] = begin + (pass.is_forward ? kForward : kBackward);
          ended[{pass.is_forward, {s, pass.micro_batch}}] = free[at];
          flying[at] += pass.is_forward ? 1 : -1;
          EXPECT_LE(flying[at], static_cast<size_t>(stages - s)) << "micro-batches of which a stage keeps something";
          ++next[at];
          moved = true;
        }
      }
      for (int s = 0; s < stages; ++s) ASSERT_EQ(next[static_cast<size_t>(s)], 2 * count) << "stage " << s << " waits for ever";
      const double busy = static_cast<double>(count) * (kForward + kBackward);
      EXPECT_NEAR(1 - busy / *std::max_element(free.begin(), free.end()), bubble_fraction(stages, static_cast<int64_t>(count)), 1e-12);
    }
  }
}

struct Case {
  ModelParallelSize size;
  testing::TinyModelOptions shape;
  size_t micro_batches;
  int64_t recompute = 0;
};

TEST(Pipeline, LossAndEveryGradientAreThoseOfOneProcess) {
  Rng rng(testing::test_seed());
  for (const Case& test : {Case{{.pipeline = 2}, {.blocks = 3}, 5}, Case{{.pipeline = 3}, {.blocks = 3, .tied = false}, 2}, Case{{.pipeline = 2}, {}, 1, 1},
                           Case{{.tensor = 2, .pipeline = 2}, {.heads = 4, .kv_heads = 2, .qk_norm = true}, 3}}) {
    const nn::Model made = testing::tiny_model(test.shape);
    const data::Dataset dataset = random_dataset(rng, 61, 12, 20);
    LanguageModelingOptions options;
    options.batches = {.seed = 1, .micro_batch_size = 2, .sequence_len = 20};
    options.recompute.every = test.recompute;
    nn::Model alone = made;
    const auto parameters = all_parameters(alone);
    LanguageModeling objective(alone, dataset, &dataset, options);
    const std::vector<MicroBatch> batches = objective.epoch(0);
    ASSERT_GE(batches.size(), test.micro_batches);
    std::vector<const MicroBatch*> step;
    for (size_t i = 0; i < test.micro_batches; ++i) step.push_back(&batches[i]);
    const std::vector<uint64_t> seeds(step.size());
    const double loss = objective.accumulate_step(step, 0.01, seeds), held_out = *objective.evaluate(), norm = gradient_norm(parameters);
    std::map<std::string, Tensor> want;
    for (const Parameter& parameter : parameters) want[parameter.name] = parameter.tensor.grad();
    const auto cuts = test.size.tensor > 1 ? tensor_parallel_cuts(made) : std::map<std::string, int64_t>();
    dist::on_ranks(test.size.ranks(), [&](dist::ProcessGroup& world) {
      nn::Model model = made;
      std::vector<Parameter> parts = all_parameters(model);
      const ModelParallel parallel(world, test.size, model, parts);
      LanguageModelingOptions own = options;
      own.recompute.inputs = parallel.input_tap();
      PipelinedLanguageModeling stage(model, parallel, dataset, &dataset, own);
      EXPECT_NEAR(stage.accumulate_step(step, 0.01, seeds) / loss, 1, 1e-5) << "all stages know the loss";
      parallel.sum_tied_gradient(parts);
      for (const Parameter& part : parts) {
        Tensor whole = want.at(part.name);
        if (const auto cut = cuts.find(part.name); cut != cuts.end()) {
          const Range range = part_of(whole.size(cut->second), world.rank() % test.size.tensor, test.size.tensor);
          whole = whole.narrow(cut->second, range.begin, range.count());
        }
        ASSERT_TRUE(part.tensor.grad().defined()) << part.name;
        EXPECT_LE((part.tensor.grad() - whole).abs().max().item<double>(), 1e-5 * whole.abs().max().item<double>() + 1e-8) << part.name;
      }
      EXPECT_NEAR(parallel.gradient_norm(parts) / norm, 1, 1e-5) << "what two stages have counts once";
      EXPECT_NEAR(*stage.evaluate() / held_out, 1, 1e-5);
      const double bubble = stage.metrics().at("pipeline/bubble").get<double>();
      EXPECT_GT(bubble, 0);
      EXPECT_LT(bubble, 1);
      EXPECT_TRUE(stage.metrics().empty()) << "of what came since";
    });
  }
}

}  // namespace
}  // namespace frugal::train
