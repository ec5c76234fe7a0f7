#include "lowrank/lowrank_table.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "lowrank/asvd.h"
#include "lowrank/svd.h"
#include "lowrank/svd_llm.h"
#include "method_rows.h"

namespace frugal::lowrank {
namespace {

using testing::correlated_inputs;
using testing::fresh_seed;
using testing::RandomModel;
using testing::relative_error;

Tensor product(const Factors& factors) { return at::matmul(factors.second.to(at::kDouble), factors.first.to(at::kDouble)); }

TEST(LowRankTable, EveryRowIsComplete) { testing::check_rows(lowrank_rows(), "lowrank", {"svd", "asvd", "svd-llm"}); }

TEST(LowRankTable, EveryRowRunsOnWeightsOfAnyShape) { testing::run_every_row(lowrank_rows(), fresh_seed()); }

TEST(LowRankTable, StepsKeepAtMostTheShareOfParametersTheyWereAskedFor) {
  Rng rng(fresh_seed());
  for (const char* step : {"svd:ratio=0.6", "asvd:ratio=0.6", "asvd:ratio=0.6,search=false", "svd-llm:ratio=0.6", "svd-llm:ratio=0.6,update=false"}) {
    RandomModel model(rng);
    nn::Model& m = *model.loaded.model;
    const auto numbers = [&] {
      int64_t count = 0;
      m.for_each_linear([&](nn::Linear& linear) {
        if (linear.name() == "lm_head") return;
        const auto* factored = dynamic_cast<const nn::LowRankKind*>(linear.kinds().front().get());
        count += factored ? factored->first()->out_features() * (linear.in_features() + linear.out_features()) : linear.in_features() * linear.out_features();
      });
      return static_cast<double>(count);
    };
    const double before = numbers();
    model.run(chain::StepTable(lowrank_rows()), {step});
    EXPECT_LE(numbers(), 0.6 * before) << step;
    EXPECT_GE(numbers(), 0.45 * before) << step;
  }
}

TEST(LowRankTable, FactoringTwiceOrAMaskedMatrixIsRefused) {
  Rng rng(fresh_seed());
  RandomModel model(rng);
  EXPECT_THROW(model.run(chain::StepTable(lowrank_rows()), {"svd", "svd-llm"}), Error);
}

TEST(Svd, ErrorIsThatOfEckartAndYoung) {
  Rng rng(fresh_seed());
  for (int trial = 0; trial < 6; ++trial) {
    const int64_t out = rng.between(5, 60), in = rng.between(5, 60), rank = rng.between(1, std::min(out, in));
    const Tensor weight = at::randn({out, in});
    const auto [u, s, v] = at::linalg_svd(weight.to(at::kDouble), false);
    const double want = s.slice(0, rank).norm().item<double>(), got = (product(truncated_svd(weight, rank)) - weight).norm().item<double>();
    EXPECT_NEAR(got, want, 1e-5 * weight.norm().item<double>()) << out << " x " << in << " rank " << rank;
  }
}

TEST(Asvd, EqualsTruncationOfTheScaledWeight) {
  Rng rng(fresh_seed());
  for (const auto& [out, in] : {std::pair{30, 50}, std::pair{50, 30}}) {
    const Tensor x = correlated_inputs(200, in), weight = at::randn({out, in});
    const Tensor abs_mean = x.abs().mean(0).to(at::kFloat), scale = abs_mean.to(at::kDouble).sqrt();
    const int64_t rank = rng.between(3, 20);
    const auto [u, s, v] = at::linalg_svd(weight.to(at::kDouble) * scale, false);
    const Tensor want = at::matmul(u.slice(1, 0, rank) * s.slice(0, 0, rank), v.slice(0, 0, rank)) / scale;
    EXPECT_LT(relative_error(product(truncated(asvd(weight, abs_mean, 0.5), rank)), want), 1e-4);

    // What dropping components costs, known in advance.
    const Tensor hessian = at::matmul(x.t(), x) / 200;
    const double predicted = component_energy(asvd(weight, abs_mean, 0.5), hessian).slice(0, rank).sum().item<double>();
    const double measured = at::matmul(x, (want - weight).t()).square().sum().item<double>() / 200;
    EXPECT_NEAR(measured / predicted, 1, 1e-4);
  }
}

TEST(Asvd, DealsOutRatiosWithinTheBudgetToWhoeverNeedsThem) {
  const std::vector<double> ratios = {0.25, 0.5, 0.75};
  // The first is ten times as sensitive as the second.
  const std::vector<Candidate> candidates = {{100, {30, 20, 10}}, {100, {3, 2, 1}}};
  EXPECT_EQ(allocate(candidates, ratios, 125), (std::vector<size_t>{3, 0}));
  EXPECT_EQ(allocate(candidates, ratios, 150), (std::vector<size_t>{3, 1}));
  EXPECT_EQ(allocate(candidates, ratios, 10), (std::vector<size_t>{0, 0}));
  EXPECT_EQ(allocate(candidates, ratios, 200), (std::vector<size_t>{3, 3}));
}

TEST(SvdLlm, TruncationLossIsWhatTheTheoremSays) {
  Rng rng(fresh_seed());
  for (const auto& [out, in] : {std::pair{30, 50}, std::pair{50, 30}}) {
    const int64_t rank = rng.between(2, 25), tokens = 300;
    const Tensor x = correlated_inputs(tokens, in), weight = at::randn({out, in});
    const Tensor hessian = at::matmul(x.t(), x) / tokens;
    // |W X - W' X| = sqrt(sum of the squared singular values of W X that were cut): those of W C are those of W X.
    const Tensor values = std::get<1>(at::linalg_svd(at::matmul(weight.to(at::kDouble), x.t()), false));
    const Factors factors = truncated(svd_llm(weight, hessian, 0.01), rank);
    const double want = values.slice(0, rank).norm().item<double>(), loss = at::matmul(x, (product(factors) - weight).t()).norm().item<double>();
    EXPECT_NEAR(loss / want, 1, 1e-4);
    const double scaled = at::matmul(x, (product(truncated(asvd(weight, x.abs().mean(0).to(at::kFloat), 0.5), rank)) - weight).t()).norm().item<double>();
    EXPECT_LE(loss, scaled);
    // On the inputs that it was whitened with, there is nothing left to refit.
    const Tensor again = updated_second(factors, at::matmul(x, weight.to(at::kDouble).t()), x, 1e-9);
    EXPECT_LT(relative_error(again, factors.second), 1e-3);
  }
}

TEST(SvdLlm, DeadAndRepeatedInputsAreNoObstacle) {
  fresh_seed();
  Tensor x = correlated_inputs(10, 30, /*dead=*/true);  // fewer tokens than channels
  const Tensor weight = at::randn({50, 30});
  const Factors factors = truncated(svd_llm(weight, at::matmul(x.t(), x) / 10, 0.01), 15);
  EXPECT_TRUE(factors.first.isfinite().all().item<bool>() && factors.second.isfinite().all().item<bool>());
  EXPECT_LT(relative_error(at::matmul(x, product(factors).t()), at::matmul(x, weight.to(at::kDouble).t())), 0.05);
  EXPECT_THROW(svd_llm(weight, at::full({30, 30}, NAN), 0.01), Error);
}

TEST(SvdLlm, TheUpdateIsTheRidgeRegressionOfTheTargets) {
  fresh_seed();
  const Tensor x = correlated_inputs(80, 20).to(at::kFloat), weight = at::randn({15, 20}), targets = at::randn({80, 15});
  const Factors factors = truncated_svd(weight, 6);
  const Tensor got = updated_second(factors, targets, x, 0.05).to(at::kDouble);
  // The same as least squares on rows added for the ridge.
  const Tensor inner = at::matmul(x, factors.first.t()).to(at::kDouble);
  const double ridge = 0.05 * inner.square().sum(0).mean().item<double>();
  const Tensor rows = at::cat({inner, std::sqrt(ridge) * at::eye(6, at::kDouble)});
  const Tensor wanted = at::cat({targets.to(at::kDouble), std::sqrt(ridge) * factors.second.to(at::kDouble).t()});
  EXPECT_LT(relative_error(got, std::get<0>(at::linalg_lstsq(rows, wanted)).t()), 1e-4);
}

}  // namespace
}  // namespace frugal::lowrank
