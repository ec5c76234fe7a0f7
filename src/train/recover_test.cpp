// Recovery within a chain: what is learned, and that each matrix keeps its form.
#include "train/recover.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "base/progress.h"
#include "method_rows.h"
#include "train/cross_entropy.h"
#include "train/hidden_states.h"

namespace frugal::train {
namespace {

using at::Tensor;
using testing::fresh_seed;
using testing::RandomModel;
using testing::relative_error;

TEST(Recover, ItsRowIsCompleteAndRunsOnWeightsOfAnyForm) {
  testing::check_rows({recover_row()}, "train", {"recover"});
  testing::run_every_row({recover_row()}, fresh_seed());
}

chain::StepTable table() {
  const auto stand_in = [](const char* id, chain::StepEffect effect, auto run) {
    return chain::StepRow{id, id, "test", "", "", {}, chain::Step{.effect = effect, .run_block = run}, {}, "test"};
  };
  const auto halve_ranks = [](chain::BlockContext& context, const Options&) {
    for (chain::Matrix& matrix : context.matrices()) {
      const auto [u, s, v] = at::linalg_svd(matrix.weight, /*full_matrices=*/false);
      const int64_t rank = s.size(0) / 2;
      matrix.store_low_rank(v.narrow(0, 0, rank), (u * s).narrow(1, 0, rank));
    }
  };
  return chain::StepTable(
      {recover_row(), stand_in("mask-half", chain::StepEffect::mask, testing::mask_half), stand_in("factor", chain::StepEffect::low_rank, +halve_ranks)});
}

// Mean loss on the chain's text.
double loss_of(const RandomModel& random) {
  const at::NoGradGuard no_grad;
  double sum = 0;
  for (int64_t begin = 0; begin < std::ssize(random.tokens); begin += RandomModel::kLength) {
    const std::span tokens = std::span(random.tokens).subspan(static_cast<size_t>(begin), static_cast<size_t>(RandomModel::kLength));
    std::vector<int64_t> targets(tokens.begin() + 1, tokens.end());
    targets.push_back(kIgnored);
    sum +=
        cross_entropy(*random.loaded.model, hidden_states(*random.loaded.model, nn::Batch::equal_parts(tokens, RandomModel::kLength)), at::tensor(targets), 1)
            .item<double>();
  }
  return sum / static_cast<double>(random.tokens.size());
}

TEST(Recover, MasksAndFactorsStayWhileTheLossFalls) {
  const chain::StepTable steps = table();
  for (const std::string before : {"mask-half", "factor"}) {
    for (const std::string recover :
         {"recover:learning_rate=3e-3,max_steps=30,micro_batch_size=8", "recover:rank=4,learning_rate=1e-2,max_steps=30,micro_batch_size=8"}) {
      SCOPED_TRACE(before + " " + recover);
      Rng rng(fresh_seed());
      RandomModel model(rng);
      model.run(steps, {before});
      const double damaged = loss_of(model);
      std::vector<std::string> forms;
      std::vector<Tensor> masks;
      model.loaded.model->for_each_linear([&](nn::Linear& linear) {
        const auto* factors = dynamic_cast<const nn::LowRankKind*>(linear.kinds().front().get());
        forms.push_back(factors ? std::to_string(factors->first()->out_features()) : linear.describe());
        masks.push_back(linear.dense() == 0);
      });
      model.run(steps, {recover});
      EXPECT_LT(loss_of(model), 0.95 * damaged);
      size_t i = 0;
      model.loaded.model->for_each_linear([&](nn::Linear& linear) {
        const auto* factors = dynamic_cast<const nn::LowRankKind*>(linear.kinds().front().get());
        EXPECT_EQ(factors ? std::to_string(factors->first()->out_features()) : linear.describe(), forms[i]);
        EXPECT_EQ(factors != nullptr, before == "factor" && linear.name() != "lm_head");
        if (before == "mask-half") EXPECT_TRUE((linear.dense().masked_select(masks[i]) == 0).all().item<bool>());
        ++i;
      });
    }
  }
}

TEST(Recover, TheTeacherIsTheModelThatTheChainBeganWith) {
  const chain::StepTable steps = table();
  const auto distance_after = [&](const std::vector<std::string>& chain) {
    Rng rng(testing::test_seed());
    at::manual_seed(testing::test_seed());
    RandomModel model(rng);
    const Tensor before = at::log_softmax(model.logits(), 1);
    model.run(steps, chain);
    return (before.exp() * (before - at::log_softmax(model.logits(), 1))).sum(1).mean().item<double>();
  };
  const double damaged = distance_after({"mask-half"});
  const double taught = distance_after({"mask-half", "recover:distillation=1,learning_rate=3e-3,max_steps=40,micro_batch_size=8"});
  EXPECT_LT(taught, 0.6 * damaged);
  // Without the step before it there is nothing to learn: teacher and student are equal.
  EXPECT_LT(distance_after({"recover:distillation=1,max_steps=3,learning_rate=1e-4"}), 1e-3 * damaged);
}

TEST(Recover, WeightsAreAsWideAsTheyWere) {
  Rng rng(fresh_seed());
  RandomModel model(rng);
  nn::Block& block = model.loaded.model->blocks[0];
  for (nn::Linear* linear : {&block.up, &block.down}) {
    linear->replace(std::make_shared<nn::DenseKind>(linear->dense().to(linear == &block.up ? at::kHalf : at::kBFloat16)));
  }
  model.run(table(), {"recover:max_steps=1"});
  EXPECT_EQ(block.up.describe(), "F16");
  EXPECT_EQ(block.down.describe(), "BF16");
  EXPECT_EQ(block.gate.describe(), "F32");
}

TEST(Recover, ARehearsalTrainsNothing) {
  Rng rng(fresh_seed());
  RandomModel model(rng);
  const Tensor before = model.logits();
  chain::Workbench bench(model.loaded, {"test", model.tokens}, {.sequences = 8, .sequence_length = 24}, 1);
  bench.rehearsal = true;
  chain::run_chain(bench, chain::parse_chain(table(), {"recover:learning_rate=1"}));
  EXPECT_LT(relative_error(model.logits(), before), 1e-6);
}

TEST(Recover, AStopEndsTheChain) {
  Rng rng(fresh_seed());
  RandomModel model(rng);
  request_stop();
  EXPECT_THROW(model.run(table(), {"recover:max_steps=1000"}), Interrupted);
  clear_stop();
}

TEST(Recover, AlphaWithoutRankIsRefused) {
  Rng rng(fresh_seed());
  RandomModel model(rng);
  EXPECT_THROW(model.run(table(), {"recover:alpha=8"}), Error);
}

}  // namespace
}  // namespace frugal::train
