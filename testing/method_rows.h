// What every row of a methods folder must hold, and a tiny model of random odd shape to run it on: the table is the driver.
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <iostream>
#include <random>
#include <set>

#include "base/rng.h"
#include "chain/chain.h"
#include "oracle.h"
#include "tiny_model.h"

namespace frugal::testing {

// torch's generator set to the seed of this run.
inline uint64_t fresh_seed() {
  at::manual_seed(test_seed());
  return test_seed();
}

// Inputs [tokens, features] as activations are: correlated channels of unequal size, one of them always zero if `dead`.
inline at::Tensor correlated_inputs(int64_t tokens, int64_t features, bool dead = false) {
  const at::Tensor mixed = at::matmul(at::randn({tokens, features}, at::kDouble), at::randn({features, features}, at::kDouble) / 6);
  at::Tensor x = (mixed + at::randn({tokens, features}, at::kDouble)) * at::randn({features}, at::kDouble).exp();
  if (dead) x.select(1, features / 2).zero_();
  return x;
}

inline void check_row(const chain::StepRow& row, const std::string& leaf) {
  SCOPED_TRACE(row.id);
  EXPECT_EQ(row.leaf, leaf);
  for (const std::string& text : {row.id, row.title, row.arxiv, row.summary}) EXPECT_FALSE(text.empty());
  EXPECT_EQ(row.summary.find('\n'), std::string::npos);
  EXPECT_NE(row.claims.empty(), row.reference.empty()) << "a row has a claim or says what it is a reference for";
  const bool block = row.function.scope == chain::StepScope::block;
  EXPECT_EQ(row.function.run_block != nullptr, block);
  EXPECT_EQ(row.function.run_model != nullptr, !block);
  const Options defaults(row.id, row.options, {});
  for (const OptionSpec& option : row.options) {
    EXPECT_FALSE(option.help.empty()) << option.name;
    if (option.type == OptionType::integer || option.type == OptionType::number) {
      const double value = parse_number(option.fallback, option.name);
      EXPECT_GE(value, option.min) << option.name;
      EXPECT_LE(value, option.max) << option.name;
    }
  }
  for (const Claim& claim : row.claims) {
    EXPECT_FALSE(claim.statement.empty() || claim.model.empty() || claim.baseline.empty() || claim.method.empty());
    bool uses_itself = false;
    for (const std::string& step : claim.method) {
      const StepText text = parse_step(step);
      if (text.id != row.id) continue;
      uses_itself = true;
      EXPECT_NO_THROW(Options(row.id, row.options, text.options));
    }
    EXPECT_TRUE(uses_itself);
  }
}

inline void check_rows(const std::vector<chain::StepRow>& rows, const std::string& leaf, const std::set<std::string>& ids) {
  std::set<std::string> found;
  for (const chain::StepRow& row : rows) {
    check_row(row, leaf);
    EXPECT_TRUE(found.insert(row.id).second);
  }
  EXPECT_EQ(found, ids);
}

// Steps that stand for another folder's: half of the weights masked, or every matrix factored at full rank.
inline void mask_half(chain::BlockContext& context, const Options&) {
  for (chain::Matrix& matrix : context.matrices()) matrix.store_masked(matrix.weight, matrix.weight > 0);
}
inline void factor(chain::BlockContext& context, const Options&) {
  for (chain::Matrix& matrix : context.matrices()) {
    const auto [u, s, v] = at::linalg_svd(matrix.weight, /*full_matrices=*/false);
    matrix.store_low_rank(s.sqrt().unsqueeze(1) * v, u * s.sqrt());
  }
}

// A model of random odd shape and its calibration text.
class RandomModel {
 public:
  explicit RandomModel(Rng& rng, int blocks = 2) {
    TinyModelOptions shape;
    shape.kv_heads = rng.between(1, 2);
    shape.heads = shape.kv_heads * rng.between(1, 3);
    shape.head_dim = 2 * rng.between(2, 6);
    shape.hidden = rng.between(20, 60);
    shape.intermediate = rng.between(30, 90);
    shape.blocks = blocks;
    shape.qk_norm = rng.below(2) == 1;
    shape.sub_norms = rng.below(4) == 0;
    shape.biases = rng.below(2) == 1;
    std::cout << "hidden " << shape.hidden << ", intermediate " << shape.intermediate << ", heads " << shape.heads << "/" << shape.kv_heads << " x "
              << shape.head_dim << (shape.qk_norm ? ", norms of q and k" : "") << (shape.sub_norms ? ", sub-norms" : "") << (shape.biases ? ", biases" : "")
              << std::endl;
    loaded.model = std::make_shared<nn::Model>(tiny_model(shape));
    tokens = random_tokens(kSequences * kLength, loaded.model->spec.vocab);
  }

  void run(const chain::StepTable& table, const std::vector<std::string>& steps) {
    chain::Workbench bench(loaded, {"test", tokens}, {.sequences = kSequences, .sequence_length = kLength, .sample_sequences = 2}, 1);
    chain::run_chain(bench, chain::parse_chain(table, steps));
  }
  at::Tensor logits() { return loaded.model->forward(nn::Batch::equal_parts(tokens, kLength)).logits; }

  static constexpr int64_t kSequences = 8, kLength = 24;
  nn::LoadedModel loaded;
  std::vector<int32_t> tokens;
};

// Runs every row by its defaults on dense, masked and low-rank weights, where that order makes sense: logits stay finite, masks
// stay, and the outcome is the same when it is run again.
inline void run_every_row(const std::vector<chain::StepRow>& rows, uint64_t seed) {
  chain::StepTable table(rows);
  const auto stand_in = [](const char* id, chain::StepEffect effect, auto run) {
    return chain::StepRow{id, id, "test", "", "", {}, chain::Step{.effect = effect, .run_block = run}, {}, "test"};
  };
  table.append({stand_in("mask-half", chain::StepEffect::mask, mask_half), stand_in("factor", chain::StepEffect::low_rank, factor)});
  for (const chain::StepRow& row : rows) {
    for (const std::string before : {"", "mask-half", "factor"}) {
      if (before == "factor" && row.function.effect == chain::StepEffect::low_rank) continue;  // refused, with a test of its own
      if (before == "mask-half" && row.function.effect == chain::StepEffect::low_rank) continue;
      SCOPED_TRACE(row.id + " after " + before);
      at::Tensor first;
      for (int repeat = 0; repeat < 2; ++repeat) {
        Rng rng(seed);
        at::manual_seed(seed);
        RandomModel model(rng);
        if (before == "mask-half") model.run(table, {before});
        std::vector<at::Tensor> dropped;
        if (before == "mask-half") {
          for (nn::Linear* linear : model.loaded.model->blocks[0].linears()) dropped.push_back(linear->dense() == 0);
        }
        if (before == "factor")
          model.run(table, {before, row.id});
        else
          model.run(table, {row.id});
        if (!dropped.empty() && row.function.scope == chain::StepScope::block) {
          const std::vector<nn::Linear*> linears = model.loaded.model->blocks[0].linears();
          for (size_t i = 0; i < linears.size(); ++i) {
            EXPECT_FALSE(linears[i]->dense().masked_select(dropped[i]).any().item<bool>()) << linears[i]->name() << " came back to life";
          }
        }
        const at::Tensor logits = model.logits();
        ASSERT_TRUE(logits.isfinite().all().item<bool>());
        if (repeat == 0) first = logits;
        EXPECT_LT(relative_error(logits, first), 1e-5);
      }
    }
  }
}

}  // namespace frugal::testing
