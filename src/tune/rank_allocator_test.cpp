// The oracle is peft's AdaLoraModel over equal gradients (tests/oracle/run_adalora.py).
#include "tune/rank_allocator.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "models/test_tools.h"
#include "tiny_model.h"
#include "train/checkpoint.h"

namespace frugal::tune {
namespace {

using at::Tensor;
using io::outcome_of;
using testing::TemporaryFolder;

constexpr int64_t kSteps = 12, kRank = 4;
constexpr double kRate = 0.05;
const io::PeftConfig::RankBudget kBudget = {.target_r = 2, .tinit = 2, .tfinal = 3, .delta_t = 2};

struct Case {
  std::vector<RankAllocator::Triplets> modules;
  std::map<std::string, Tensor> given;  // as the oracle reads them

  Case() {
    at::manual_seed(testing::test_seed());
    for (const auto& [name, out, in] : {std::tuple{"a", 9, 7}, {"b", 5, 11}, {"c", 6, 6}}) {
      RankAllocator::Triplets m{name, at::randn({kRank, in}).mul_(0.5), at::randn({out, kRank}).mul_(0.5), at::randn({kRank, 1})};
      for (const auto& [part, tensor] : parts(m)) {
        given[part] = tensor.clone();
        for (int64_t step = 0; step < kSteps; ++step) given[fmt::format("{}.{}", step, part)] = at::randn(tensor.sizes());
      }
      modules.push_back(std::move(m));
    }
  }

  static std::vector<std::pair<std::string, Tensor>> parts(const RankAllocator::Triplets& m) {
    return {{m.module + ".lora_A", m.a}, {m.module + ".lora_B", m.b}, {m.module + ".lora_E", m.e}};
  }

  // One step of plain gradient descent; what the log says of it.
  Json step(RankAllocator& allocator, int64_t step) {
    for (const auto& m : modules) {
      for (auto [name, tensor] : parts(m)) tensor.mutable_grad() = given.at(fmt::format("{}.{}", step, name)).clone();
    }
    const Json log = allocator.add_gradients();
    for (const auto& m : modules) {
      for (auto [name, tensor] : parts(m)) tensor.sub_(tensor.grad(), kRate);
    }
    allocator.after_step(step);
    return log;
  }
};

TEST(RankAllocator, MovesAndDropsRanksAsPeftDoes) {
  const TemporaryFolder folder;
  Case c;
  train::write_tensors(folder / "in", c.given);
  io::run_oracle("run_adalora.py", fmt::format("{} {} {} {} {} {} {} {}", folder / "in", folder / "out", kSteps, kRate, kBudget.target_r, kBudget.tinit,
                                               kBudget.tfinal, kBudget.delta_t));
  const auto expected = models::read_tensors(folder / "out");
  RankAllocator allocator(c.modules, kBudget);
  allocator.begin(kSteps);
  int64_t dropped = 0;
  for (int64_t step = 0; step < kSteps; ++step) {
    const double penalty = c.step(allocator, step).at("adalora/orthogonality").get<double>();
    EXPECT_NEAR(penalty, expected.at("penalty")[step].item<double>(), 2e-4 * penalty) << step;
    dropped = 0;
    for (const auto& m : c.modules) {
      for (const auto& [name, tensor] : Case::parts(m)) {
        EXPECT_LT((tensor - expected.at(fmt::format("{}.{}", step, name))).abs().max().item<double>(), 1e-5) << name << " after step " << step;
      }
      dropped += m.e.eq(0).sum().item<int64_t>();
    }
  }
  EXPECT_EQ(dropped, 3 * (kRank - kBudget.target_r));
  io::PeftConfig config;
  allocator.describe(config);
  ASSERT_EQ(config.kept_ranks.size(), 3u);
  for (const auto& [name, kept] : config.kept_ranks) {
    const Tensor want = expected.at("kept." + name.substr(0, 1));
    for (int64_t i = 0; i < kRank; ++i) EXPECT_EQ(kept[static_cast<size_t>(i)], want[i].item<bool>()) << name << " " << i;
  }
}

TEST(RankAllocator, GoesOnFromItsStateToTheBit) {
  Case whole, halves;
  RankAllocator first(whole.modules, kBudget), before(halves.modules, kBudget), after(halves.modules, kBudget);
  for (RankAllocator* allocator : {&first, &before, &after}) allocator->begin(kSteps);
  for (int64_t step = 0; step < 6; ++step) {
    whole.step(first, step);
    halves.step(before, step);
  }
  std::map<std::string, Tensor> state;
  before.for_each_state([&](const std::string& name, Tensor& tensor) { state[name] = tensor.clone(); });
  after.for_each_state([&](const std::string& name, Tensor& tensor) { tensor.copy_(state.at(name)); });
  for (int64_t step = 6; step < kSteps; ++step) {
    whole.step(first, step);
    halves.step(after, step);
  }
  for (size_t i = 0; i < whole.modules.size(); ++i) EXPECT_TRUE(at::equal(whole.modules[i].e, halves.modules[i].e)) << i;
  io::PeftConfig a, b;
  first.describe(a);
  after.describe(b);
  EXPECT_EQ(a.kept_ranks, b.kept_ranks);
}

TEST(RankAllocator, ScheduleFallsFromAllToTheTargetAndOneWithoutStepsIsRefused) {
  const Case c;
  RankAllocator allocator(c.modules, kBudget);
  allocator.begin(kSteps);
  EXPECT_EQ(allocator.budget_at(0), 3 * kRank);
  EXPECT_EQ(allocator.budget_at(kBudget.tinit), 3 * kRank);
  for (int64_t step = 1; step < kSteps; ++step) EXPECT_LE(allocator.budget_at(step), allocator.budget_at(step - 1));
  EXPECT_EQ(allocator.budget_at(kSteps - kBudget.tfinal), 3 * kBudget.target_r);
  EXPECT_THAT(outcome_of([&] { allocator.begin(5); }), ::testing::AllOf(::testing::StartsWith("invalid input"), ::testing::HasSubstr("tinit 2")));
}

}  // namespace
}  // namespace frugal::tune
