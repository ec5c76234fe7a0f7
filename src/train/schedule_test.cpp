#include "train/schedule.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "base/rng.h"
#include "oracle.h"

namespace frugal::train {
namespace {

Options options_of(const std::string& text) { return Options("schedule", schedule_options(), parse_step("schedule:" + text).options); }

TEST(Schedule, FactorsAreThoseOfTransformers) {
  Rng rng(testing::test_seed());
  nlohmann::json cases = nlohmann::json::array();
  std::vector<std::pair<std::string, int64_t>> ours;
  const auto add = [&](const std::string& type, const std::string& given, int64_t total, int64_t warmup, const nlohmann::json& arguments) {
    ours.push_back({"lr_scheduler_type=" + type + given, total});
    cases.push_back({{"name", type}, {"total", total}, {"warmup", warmup}, {"arguments", arguments}});
  };
  for (int i = 0; i < 8; ++i) {
    const int64_t total = rng.between(1, 90), warmup = i == 0 ? 0 : rng.between(0, total), decay = rng.between(1, std::max<int64_t>(1, total - warmup));
    const double ratio = rng.uniform(), cycles = rng.uniform(0.1, 3), least = rng.uniform();
    const std::string steps = fmt::format(",warmup_steps={}", warmup);
    const nlohmann::json none = nlohmann::json::object();
    add("constant", "", total, 0, none);
    add("linear", fmt::format(",warmup_ratio={}", ratio), total, static_cast<int64_t>(std::ceil(static_cast<double>(total) * ratio)), none);
    for (const char* type : {"linear", "cosine", "constant_with_warmup", "inverse_sqrt"}) add(type, steps, total, warmup, none);
    add("cosine", steps + fmt::format(",num_cycles={}", cycles), total, warmup, {{"num_cycles", cycles}});
    add("cosine_with_min_lr", steps + fmt::format(",min_lr_rate={}", least), total, warmup, {{"min_lr_rate", least}});
    const int64_t timescale = warmup + rng.between(1, 50);
    add("inverse_sqrt", steps + fmt::format(",timescale={}", timescale), total, warmup, {{"timescale", timescale}});
    if (warmup + decay > total) continue;
    for (const char* type : {"cosine", "linear", "1-sqrt"}) {
      add("warmup_stable_decay", steps + fmt::format(",num_decay_steps={},decay_type={},min_lr_rate={}", decay, type, least), total, warmup,
          {{"num_decay_steps", decay}, {"decay_type", type}, {"min_lr_ratio", least}});
    }
  }
  const testing::TemporaryFolder folder;
  const auto theirs = nlohmann::json::parse(testing::run_oracle("schedule_factors.py", folder.write("cases", cases.dump())));
  ASSERT_EQ(theirs.size(), ours.size());
  for (size_t i = 0; i < ours.size(); ++i) {
    const Options options = options_of(ours[i].first);
    for (int64_t step = 0; step < static_cast<int64_t>(theirs[i].size()); ++step) {
      EXPECT_NEAR(schedule_factor(options, step, ours[i].second), theirs[i][step].get<double>(), 1e-12)
          << ours[i].first << ", " << step << " of " << ours[i].second;
    }
  }
}

TEST(Schedule, WithoutAnOptionTheDecayIsTheLastTenth) {
  const Options options = options_of("lr_scheduler_type=warmup_stable_decay,decay_type=linear");
  EXPECT_EQ(schedule_factor(options, 90, 100), 1);
  EXPECT_NEAR(schedule_factor(options, 95, 100), 0.5, 1e-12);
  EXPECT_EQ(schedule_factor(options, 100, 100), 0);
}

TEST(Schedule, WhatATypeDoesNotReadOrWhatDoesNotFitIsRefused) {
  for (const char* given : {"lr_scheduler_type=constant,warmup_steps=3", "lr_scheduler_type=linear,min_lr_rate=0.1", "lr_scheduler_type=cosine,timescale=5",
                            "warmup_steps=3,warmup_ratio=0.1", "lr_scheduler_type=warmup_stable_decay,warmup_steps=60,num_decay_steps=50"}) {
    EXPECT_THROW(schedule_factor(options_of(given), 0, 100), Error) << given;
  }
}

}  // namespace
}  // namespace frugal::train
