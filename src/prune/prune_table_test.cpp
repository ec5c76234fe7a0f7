#include "prune/prune_table.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "method_rows.h"
#include "prune/shortgpt.h"
#include "prune/wanda.h"

namespace frugal::prune {
namespace {

using testing::fresh_seed;
using testing::RandomModel;

TEST(PruneTable, EveryRowIsComplete) { testing::check_rows(prune_rows(), "prune", {"magnitude", "wanda", "sparsegpt", "shortgpt"}); }

TEST(PruneTable, EveryRowRunsOnDenseMaskedAndFactoredWeightsOfAnyShape) { testing::run_every_row(prune_rows(), fresh_seed()); }

TEST(PruneTable, StepsLeaveTheSparsityTheyWereAskedFor) {
  Rng rng(fresh_seed());
  const chain::StepTable table(prune_rows());
  for (const std::string method : {"magnitude:", "magnitude:scope=row,", "magnitude:scope=block,", "wanda:", "sparsegpt:", "sparsegpt:bits=4,group=16,"}) {
    for (const std::string pattern : {"sparsity=0.3", "pattern=2:4", "pattern=4:8"}) {
      SCOPED_TRACE(method + pattern);
      RandomModel model(rng);
      model.run(table, {method + pattern});
      int64_t zeros = 0, count = 0;
      for (nn::Block& block : model.loaded.model->blocks) {
        for (nn::Linear* linear : block.linears()) {
          const auto* sparse = dynamic_cast<const nn::SparseKind*>(linear->kinds().front().get());
          ASSERT_NE(sparse, nullptr);
          zeros += sparse->mask().logical_not().sum().item<int64_t>();
          count += sparse->mask().numel();
          if (pattern == "sparsity=0.3" || linear->in_features() % 8 != 0) continue;
          const int m = pattern == "pattern=2:4" ? 4 : 8;
          EXPECT_TRUE((sparse->mask().view({-1, m}).sum(1) == m / 2).all().item<bool>());
          EXPECT_EQ(sparse->weight()->pattern, formats::SparsePattern::n_of_m);
        }
      }
      // Rounded down per matrix, row or block of columns; ragged groups of N:M drop less.
      const double sparsity = static_cast<double>(zeros) / static_cast<double>(count), asked = pattern == "sparsity=0.3" ? 0.3 : 0.5;
      EXPECT_LE(sparsity, asked + 1e-9);
      EXPECT_GE(sparsity, asked - (pattern == "sparsity=0.3" ? 0.035 : 0.15));
    }
  }
}

TEST(PruneTable, ASparsityThatContradictsThePatternIsRefused) {
  Rng rng(1);
  RandomModel model(rng);
  EXPECT_THROW(model.run(chain::StepTable(prune_rows()), {"wanda:pattern=2:4,sparsity=0.7"}), Error);
}

TEST(Wanda, MaskEqualsBruteForce) {
  Rng rng(fresh_seed());
  for (const Pattern pattern : {Pattern{.sparsity = 0.55}, Pattern{.n = 2, .m = 4}, Pattern{.n = 4, .m = 8}}) {
    const int64_t rows = rng.between(2, 9), columns = rng.between(9, 60);
    const Tensor x = testing::correlated_inputs(50, columns).to(at::kFloat), weight = at::randn({rows, columns});
    const Tensor kept = wanda(weight, x.norm(2, 0), {}, pattern);
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t step = pattern.m == 0 ? columns : pattern.m;
      for (int64_t begin = 0; begin < columns; begin += step) {
        std::vector<std::pair<double, int64_t>> scores;
        for (int64_t c = begin; c < std::min(begin + step, columns); ++c) {
          double energy = 0;
          for (int64_t t = 0; t < 50; ++t) energy += std::pow(x[t][c].item<double>(), 2);
          scores.emplace_back(std::abs(weight[r][c].item<double>()) * std::sqrt(energy), c);
        }
        std::sort(scores.begin(), scores.end());
        const auto size = static_cast<int64_t>(scores.size());
        const int64_t drop = pattern.m == 0 ? static_cast<int64_t>(0.55 * static_cast<double>(columns) + 1e-9) : std::max<int64_t>(0, size - pattern.n);
        for (int64_t i = 0; i < size; ++i) EXPECT_EQ(kept[r][scores[static_cast<size_t>(i)].second].item<bool>(), i >= drop);
      }
    }
  }
}

TEST(ShortGpt, InfluenceIsOneMinusTheMeanCosine) {
  fresh_seed();
  const Tensor a = at::randn({7, 12}), b = at::randn({7, 12});
  double sum = 0;
  for (int64_t t = 0; t < 7; ++t) sum += (a[t].dot(b[t]) / (a[t].norm() * b[t].norm())).item<double>();
  EXPECT_NEAR(block_influence(a, b), 1 - sum / 7, 1e-6);
  EXPECT_NEAR(block_influence(a, 3 * a), 0, 1e-6);
}

TEST(ShortGpt, RemovesTheBlockThatDoesNothingAndRenumbersTheRest) {
  Rng rng(fresh_seed());
  RandomModel model(rng, 4);
  nn::Model& m = *model.loaded.model;
  for (nn::Linear* linear : {&m.blocks[1].output, &m.blocks[1].down})
    linear->replace(std::make_shared<nn::DenseKind>(at::zeros({linear->out_features(), linear->in_features()})));
  const Tensor before = model.logits();
  const Tensor last = m.blocks[3].gate.dense().clone();
  model.run(chain::StepTable(prune_rows()), {"shortgpt:blocks=1"});
  ASSERT_EQ(m.blocks.size(), 3u);
  ASSERT_EQ(m.spec.blocks.size(), 3u);
  EXPECT_TRUE(at::equal(m.blocks[2].gate.dense(), last));
  EXPECT_EQ(m.blocks[2].gate.name(), "model.layers.2.mlp.gate_proj");
  EXPECT_LT(testing::relative_error(model.logits(), before), 1e-5);
  // With a state as when serving.
  nn::SequenceState state(m.spec);
  const auto batch = nn::Batch::single(std::span(model.tokens).first(10), &state);
  EXPECT_LT(testing::relative_error(m.forward(batch).logits, before.slice(0, 0, 10)), 1e-4);
}

TEST(ShortGpt, OrdersAreTheLowestTheLastOrRandomBlocks) {
  Rng rng(fresh_seed());
  EXPECT_EQ(choose_blocks({0.5, 0.1, 0.4, 0.2}, 2, DropOrder::influence, rng), (std::vector<int>{1, 3}));
  EXPECT_EQ(choose_blocks({0.5, 0.1, 0.4, 0.2}, 2, DropOrder::last, rng), (std::vector<int>{2, 3}));
  std::vector<int> seen(6, 0);
  for (int trial = 0; trial < 300; ++trial) {
    const std::vector<int> dropped = choose_blocks(std::vector<double>(6, 0), 2, DropOrder::random, rng);
    ASSERT_EQ(dropped.size(), 2u);
    EXPECT_LT(dropped[0], dropped[1]);
    for (const int block : dropped) ++seen[static_cast<size_t>(block)];
  }
  for (const int count : seen) EXPECT_NEAR(count, 100, 60);
  RandomModel model(rng);
  EXPECT_THROW(model.run(chain::StepTable(prune_rows()), {"shortgpt:blocks=2"}), Error);
  EXPECT_THROW(model.run(chain::StepTable(prune_rows()), {"shortgpt:blocks=1,ratio=0.5"}), Error);
  model.run(chain::StepTable(prune_rows()), {"shortgpt:ratio=0.5,order=random"});
  EXPECT_EQ(model.loaded.model->blocks.size(), 1u);
}

}  // namespace
}  // namespace frugal::prune
