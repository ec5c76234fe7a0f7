#include "claims/runner.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "tiny_model.h"

namespace frugal::claims {
namespace {

TEST(Claims, AVerdictNeedsMoreThanTheConfidenceInterval) {
  EXPECT_EQ(judge(-0.3, 0.2, true, 0), Verdict::holds);
  EXPECT_EQ(judge(0.3, 0.2, true, 0), Verdict::fails);
  EXPECT_EQ(judge(-0.19, 0.2, true, 0), Verdict::too_small);
  EXPECT_EQ(judge(0.05, 0.02, true, 0.1), Verdict::holds);  // within the bound
  EXPECT_EQ(judge(0.3, 0.2, false, 0), Verdict::holds);
  // Tables of Student's t: two-sided 95 %.
  EXPECT_NEAR(confidence(1, 3), 4.303, 1e-3);
  EXPECT_NEAR(confidence(0.5, 16), 2.131 / 2, 1e-3);
  EXPECT_EQ(confidence(0, 1), 0) << "what is not drawn has no interval";
}

TEST(Claims, ComparisonsArePaired) {
  const std::vector<double> baseline = {4.0, 5.0, 6.0}, method = {3.9, 4.9, 5.91};
  Claim claim;
  Result result = compare(baseline, method, claim);
  EXPECT_DOUBLE_EQ(result.baseline, 5);
  EXPECT_NEAR(result.baseline_error, 1 / std::sqrt(3.0), 1e-12);
  EXPECT_NEAR(result.difference, -0.29 / 3, 1e-12);
  EXPECT_NEAR(result.standard_error, 0.01 / 3, 1e-9) << "of the differences, which hardly differ";
  EXPECT_EQ(result.verdict, Verdict::holds);
  claim.factor = 0.9;  // a tenth less is not there
  result = compare(baseline, method, claim);
  EXPECT_NEAR(result.difference, result.method - 0.9 * result.baseline, 1e-12);
  EXPECT_EQ(result.verdict, Verdict::fails);
  EXPECT_EQ(compare(std::vector<double>{1}, std::vector<double>{0.9}, claim).verdict, Verdict::too_small) << "exactly the bound is not under it";
  EXPECT_EQ(compare(std::vector<double>{1}, std::vector<double>{0.8}, claim).verdict, Verdict::holds);
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
  setting.load = [&](const std::string&) {
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
  setting.evaluation = [&](const std::string&) { return eval::EvalText{"text", "hash", tokens, {}}; };
  setting.calibration = [](const std::string&) { return chain::CalibrationText(); };
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
