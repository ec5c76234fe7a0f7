#include "claims/runner.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tiny_model.h"

namespace frugal::claims {
namespace {

TEST(Claims, AVerdictNeedsMoreThanTwoStandardErrors) {
  EXPECT_EQ(judge(-0.3, 0.1, true, 0), Verdict::holds);
  EXPECT_EQ(judge(0.3, 0.1, true, 0), Verdict::fails);
  EXPECT_EQ(judge(-0.19, 0.1, true, 0), Verdict::too_small);
  EXPECT_EQ(judge(0.05, 0.01, true, 0.1), Verdict::holds);  // within the bound
  EXPECT_EQ(judge(0.3, 0.1, false, 0), Verdict::holds);
}

void noise(chain::BlockContext& context, const Options& options) {
  at::manual_seed(5);
  for (chain::Matrix& matrix : context.matrices()) matrix.store_dense(matrix.weight + options.number("size") * at::randn_like(matrix.weight));
}

TEST(Claims, BaselineAndMethodRunOnTheSameTokensAndEachChainOnce) {
  at::manual_seed(11);
  const auto original = std::make_shared<nn::Model>(testing::tiny_model({.vocab = 31}));
  int loads = 0;
  Setting setting;
  setting.load = [&] {
    ++loads;
    nn::LoadedModel loaded;
    loaded.model = std::make_shared<nn::Model>(*original);
    return loaded;
  };
  // A text that the original finds likely, so that noise in its weights costs something.
  std::vector<int32_t> tokens = {1};
  nn::SequenceState state(original->spec);
  while (tokens.size() < 512 * 4) {
    if (tokens.size() % 128 == 0) state.rollback(0);
    const at::Tensor logits = original->forward(nn::Batch::single(std::span(tokens).last(1), &state)).logits;
    tokens.push_back(at::multinomial(at::softmax(logits[0], -1), 1).item<int32_t>());
  }
  setting.evaluation = {"text", "hash", tokens, {}};
  const chain::StepTable table({chain::StepRow{"noise",
                                               "",
                                               "test",
                                               "",
                                               "",
                                               {number_option("size", 0.1, 0, 10, "")},
                                               chain::Step{chain::StepScope::block, chain::StepEffect::transform, nullptr, noise, nullptr, false},
                                               {},
                                               "test"}});
  Runner runner(table, setting);
  Claim claim;
  claim.baseline = {"noise:size=2"};
  claim.method = {"noise:size=0"};
  claim.chunks = 4;
  const Result result = runner.run(claim);
  EXPECT_EQ(result.verdict, Verdict::holds) << result.baseline << " " << result.method << " " << result.standard_error;
  EXPECT_NEAR(result.difference, result.method - result.baseline, 1e-12);
  EXPECT_EQ(loads, 2);
  std::swap(claim.baseline, claim.method);
  EXPECT_EQ(runner.run(claim).verdict, Verdict::fails);
  EXPECT_EQ(loads, 2);
  claim.metric = "taste";
  EXPECT_THROW(runner.run(claim), Error);
}

}  // namespace
}  // namespace frugal::claims
