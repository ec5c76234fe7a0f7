#include "chain/ledger.h"

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <random>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "chain/ledger_metrics.h"
#include "oracle.h"

namespace frugal::chain {
namespace {
namespace fs = std::filesystem;

class LedgerTest : public ::testing::Test {
 protected:
  std::string path() const { return folder_ / "ledger.jsonl"; }
  testing::TemporaryFolder folder_;
};

LedgerRow full_row() {
  LedgerRow row;
  row.time = "2026-11-24T17:44:38Z";
  row.name = "three \"bits\"\nand more \xE2\x82\xAC";
  row.model = "SmolLM2";
  row.model_hash = "m1";
  row.base_hash = "b1";
  row.chain = {"gptq:bits=3,group=64", "wanda:sparsity=0.5"};
  row.leaves = {"quantize", "prune"};
  row.runtime = {"kv:bits=8"};
  row.machine = {"Some CPU", "avx2", "00ff", 2, 2, int64_t{24} << 30};
  row.version = "0.1.0";
  row.bytes = 98362432;
  row.parameters = 134515008;
  row.bits_per_weight = 5.85;
  row.text = "evaluation.txt";
  row.text_hash = "t1";
  row.ctx = 512;
  row.chunks = 16;
  row.tokens = 4096;
  row.ln_perplexity = 3.0660123456789012;
  row.perplexity = 21.4574;
  row.ln_ratio = 0.1;
  row.ln_ratio_stderr = 1e-300;
  row.tasks = {{"arc", 0.5}};
  row.decode_tps = 91.25;
  row.peak_rss_bytes = 1;
  row.step_seconds = 0;
  return row;
}

TEST_F(LedgerTest, ARowComesBackExactly) {
  const Ledger ledger(path());
  ledger.append(full_row());
  LedgerRow step;
  step.kind = RowKind::step;
  step.time = "2026-11-24T17:44:39Z";
  ledger.append(step);
  const LedgerContents contents = read_ledger(path());
  EXPECT_TRUE(contents.problems.empty());
  ASSERT_EQ(contents.rows.size(), 2u);
  EXPECT_EQ(contents.rows[0], full_row());
  EXPECT_EQ(contents.rows[1], step);
}

TEST_F(LedgerTest, WhatIsNotFiniteIsLeftOutAndTheTimeIsFilledIn) {
  LedgerRow row = full_row();
  row.time.clear();
  row.perplexity = std::numeric_limits<double>::infinity();
  row.ln_ratio = std::nan("");
  row.tasks["broken"] = std::nan("");
  row.notes = "not UTF-8: \xFF";
  Ledger(path()).append(row);
  const LedgerContents contents = read_ledger(path());
  ASSERT_EQ(contents.rows.size(), 1u);
  EXPECT_FALSE(contents.rows[0].perplexity);
  EXPECT_FALSE(contents.rows[0].ln_ratio);
  EXPECT_EQ(contents.rows[0].tasks.size(), 1u);
  EXPECT_EQ(contents.rows[0].time.size(), 20u);
}

TEST_F(LedgerTest, BadLinesAreSkippedWithTheirNumberAndACutLastLineIsIgnored) {
  const std::string good = to_json_line(full_row());
  const std::vector<std::string> bad = {
      "",
      "{",
      "[]",
      "{}",
      "nonsense",
      good + "x",
      R"({"schema":2,"kind":"eval"})",
      R"({"schema":1,"kind":"other"})",
      R"({"schema":1,"kind":"eval","machine":{}})",
      "{\"schema\":1,\"schema\":1}",
      std::string(100, '['),
      R"({"schema":1,"kind":"eval","bytes":-1,"machine":{"cpu":"","isa":"","host":"","cores":0,"threads":0,"memory_bytes":0}})",
      R"({"schema":1,"kind":"eval","chain":["a"],"machine":{"cpu":"","isa":"","host":"","cores":0,"threads":0,"memory_bytes":0}})",
  };
  std::ofstream file(path(), std::ios::binary);
  for (const std::string& line : bad) file << good << '\n' << line << '\n';
  file << good << '\n' << good.substr(0, 50);
  file.close();
  std::vector<std::string> warnings;
  set_log_sink(
      [&](LogLevel level, std::string_view text) {
        if (level == LogLevel::warning) warnings.emplace_back(text);
      },
      LogLevel::warning);
  const LedgerContents contents = read_ledger(path());
  set_log_sink(nullptr, LogLevel::off);
  EXPECT_EQ(contents.rows.size(), bad.size() + 1);
  ASSERT_EQ(contents.problems.size(), bad.size());
  EXPECT_EQ(warnings.size(), bad.size());
  for (size_t i = 0; i < bad.size(); ++i) {
    EXPECT_NE(contents.problems[i].find(fmt::format("ledger.jsonl:{}", 2 * i + 2)), std::string::npos) << contents.problems[i];
  }
}

TEST_F(LedgerTest, AppendingAfterACutLineRepairsTheFile) {
  const std::string good = to_json_line(full_row());
  std::ofstream(path(), std::ios::binary) << good << '\n' << good.substr(0, 50);
  Ledger(path()).append(full_row());
  const LedgerContents contents = read_ledger(path());
  EXPECT_EQ(contents.rows.size(), 2u);
  EXPECT_TRUE(contents.problems.empty());
  EXPECT_THROW(read_ledger(path() + ".absent"), Error);
}

TEST_F(LedgerTest, AKilledWriterLeavesWholeRows) {
  for (int round = 0; round < 5; ++round) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      for (;;) Ledger(path()).append(full_row());
    }
    ::usleep(20000 + 7000 * round);
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
  }
  const LedgerContents contents = read_ledger(path());
  EXPECT_GT(contents.rows.size(), 5u);
  EXPECT_TRUE(contents.problems.empty());
}

// The definition, word for word, over the rows that may be compared.
std::set<size_t> brute_force_front(const std::vector<LedgerRow>& rows) {
  std::set<size_t> front;
  for (size_t i = 0; i < rows.size(); ++i) {
    if (!rows[i].decode_tps || !rows[i].ln_ratio) continue;
    const bool beaten = std::any_of(rows.begin(), rows.end(), [&](const LedgerRow& other) {
      if (!other.decode_tps || !other.ln_ratio || other.base_hash != rows[i].base_hash || other.text_hash != rows[i].text_hash) return false;
      if (other.machine.host != rows[i].machine.host || other.machine.threads != rows[i].machine.threads) return false;
      const bool as_good = *other.decode_tps >= *rows[i].decode_tps && *other.ln_ratio <= *rows[i].ln_ratio;
      return as_good && (*other.decode_tps > *rows[i].decode_tps || *other.ln_ratio < *rows[i].ln_ratio);
    });
    if (!beaten) front.insert(i);
  }
  return front;
}

TEST(LedgerMetrics, TheParetoFrontEqualsBruteForceAmongComparableRows) {
  std::mt19937_64 random(testing::test_seed());
  const auto below = [&](int bound) { return static_cast<int>(random() % static_cast<unsigned>(bound)); };
  for (int round = 0; round < 200; ++round) {
    std::vector<LedgerRow> rows(static_cast<size_t>(below(40)));
    for (LedgerRow& row : rows) {
      row.chain = {"x"};
      row.base_hash = "b" + std::to_string(below(2));
      row.text_hash = "t" + std::to_string(below(2));
      row.machine.host = "h" + std::to_string(below(2));
      row.machine.threads = 1 + below(2);
      if (below(10)) row.decode_tps = below(8);  // few values: ties are common
      if (below(10)) row.ln_ratio = below(8);
    }
    const std::vector<size_t> front = pareto_front(rows, metric_decode_tps(), metric_ln_ratio());
    EXPECT_EQ(std::set<size_t>(front.begin(), front.end()), brute_force_front(rows));
    EXPECT_TRUE(std::is_sorted(front.begin(), front.end()));
  }
}

TEST(LedgerMetrics, ComparisonKeysDoNotMixFields) {
  LedgerRow a = full_row(), b = full_row();
  a.base_hash = "1:x";
  a.text_hash = "y";
  b.base_hash = "1";
  b.text_hash = "x1:y";
  EXPECT_NE(comparison_key(a, Scope::text), comparison_key(b, Scope::text));
  b = full_row();
  b.machine.threads = 1;
  EXPECT_EQ(comparison_key(full_row(), Scope::text), comparison_key(b, Scope::text));
  EXPECT_NE(comparison_key(full_row(), Scope::machine), comparison_key(b, Scope::machine));
  EXPECT_TRUE(comparable(full_row(), b, metric_bytes(), metric_ln_ratio()));
  EXPECT_FALSE(comparable(full_row(), b, metric_decode_tps(), metric_ln_ratio()));
}

TEST(LedgerMetrics, OnlyTheNewestOfEqualEvaluationsIsKept) {
  LedgerRow old_row = full_row(), new_row = full_row(), other = full_row(), step = full_row();
  new_row.time = "2026-11-25T00:00:00Z";
  new_row.perplexity = 1;
  other.chunks = 8;
  step.kind = RowKind::step;
  const auto latest = latest_evaluations({new_row, step, other, old_row});
  ASSERT_EQ(latest.size(), 2u);
  EXPECT_EQ(latest[0], new_row);
  EXPECT_EQ(latest[1], other);
}

TEST(LedgerMetrics, TheTimeToMakeAPointSumsItsPrefixes) {
  LedgerRow row = full_row(), first = full_row(), second = full_row();
  first.kind = second.kind = RowKind::step;
  first.chain.pop_back();
  first.step_seconds = 30;
  second.step_seconds = 12;
  EXPECT_EQ(seconds_to_make(row, {first, row, second}), 42.0);
  EXPECT_EQ(seconds_to_make(row, {second}), std::nullopt);
  second.machine.threads = 1;
  EXPECT_EQ(seconds_to_make(row, {first, second}), std::nullopt);
  row.chain.clear();
  EXPECT_EQ(seconds_to_make(row, {}), 0.0);
}

TEST(LedgerMetrics, ThisMachineIsDescribed) {
  const Machine machine = this_machine("avx2", 2);
  EXPECT_FALSE(machine.cpu.empty());
  EXPECT_GT(machine.cores, 0);
  EXPECT_GT(machine.memory_bytes, int64_t{1} << 26);
  EXPECT_EQ(machine.host.size(), 16u);
  EXPECT_EQ(machine.threads, 2);
}

}  // namespace
}  // namespace frugal::chain
