// What a run's folder says, read back: whole logs, cut and damaged ones, and what is drawn of them.
#include "train/run_history.h"

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>

#include "base/file.h"
#include "base/rng.h"
#include "io/test_tools.h"
#include "oracle.h"
#include "train/run_curves.h"
#include "train/run_folder.h"
#include "train/run_report.h"

namespace frugal::train {
namespace {
namespace fs = std::filesystem;
using io::TemporaryFolder;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

std::vector<LogRow> drawn_rows(Rng& rng, int64_t count, int64_t every = 1) {
  std::vector<LogRow> rows;
  for (int64_t i = 1; i <= count; ++i) {
    LogRow row;
    row.step = i * every;
    row.total_steps = count * every;
    row.epoch = static_cast<double>(i) / 7;
    row.loss = 4 / std::sqrt(static_cast<double>(i)) + 0.1 * rng.uniform();
    row.grad_norm = rng.uniform() + 0.1;
    row.learning_rate = 1e-3 * (1 - static_cast<double>(i) / static_cast<double>(count + 1));
    row.tokens_per_second = 900 + 100 * rng.uniform();
    row.elapsed_seconds = static_cast<double>(i * 61);
    row.remaining_seconds = static_cast<double>((count - i) * 61);
    row.tokens = i * 512;
    row.peak_rss_bytes = static_cast<uint64_t>(700'000'000 + i);
    row.mfu = 0.3 + 0.1 * rng.uniform();
    row.has_eval = i % 5 == 0;
    if (row.has_eval) row.eval_loss = row.loss + 0.5;
    if (i % 3 == 0) row.metrics = {{"rewards/margins", rng.uniform() - 0.5}};
    rows.push_back(row);
  }
  return rows;
}

std::string text_of(const std::vector<LogRow>& rows) {
  std::string text;
  for (const LogRow& row : rows) text += row.line().dump() + "\n";
  return text;
}

class RunLogTest : public ::testing::Test {
 protected:
  std::string log(const std::string& text) { return folder_.write("run/trainer_log.jsonl", text); }
  std::string outcome(const std::string& text) {
    return io::outcome_of([&] { read_run_log(log(text)); });
  }
  TemporaryFolder folder_;
  Rng rng_{testing::test_seed()};
};

TEST_F(RunLogTest, RowsAreReadAsTheyWereWritten) {
  const std::vector<LogRow> rows = drawn_rows(rng_, 12);
  {
    RunLog writer(folder_ / ".", 0);
    for (const LogRow& row : rows) writer.write(row);
  }
  const std::vector<LogRow> read = read_run_log(folder_ / "trainer_log.jsonl");
  ASSERT_EQ(read.size(), rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    EXPECT_EQ(read[i].line(), rows[i].line());
    EXPECT_EQ(read[i].elapsed_seconds, rows[i].elapsed_seconds);
    EXPECT_EQ(read[i].mfu, rows[i].mfu);
    EXPECT_EQ(read[i].has_eval, rows[i].has_eval);
  }
}

// A run that is being written, or was killed: every cut of the last line.
TEST_F(RunLogTest, ACutLastLineIsNoRow) {
  const std::vector<LogRow> rows = drawn_rows(rng_, 3);
  const std::string text = text_of(rows), kept = text_of({rows[0], rows[1]});
  for (size_t length = kept.size(); length < text.size(); ++length) EXPECT_EQ(read_run_log(log(text.substr(0, length))).size(), 2u) << length;
  EXPECT_EQ(read_run_log(log(text)).size(), 3u);
  EXPECT_TRUE(read_run_log(log("")).empty());
}

TEST_F(RunLogTest, NumbersThatWereNotFiniteAreNotNumbersAndARunFromBeforeUtilisationIsRead) {
  std::vector<LogRow> rows = drawn_rows(rng_, 3);
  rows[1].loss = kNan;
  rows[1].grad_norm = std::numeric_limits<double>::infinity();
  rows[1].metrics = {{"rewards/margins", kNan}};
  rows[1].skipped = true;
  rows[1].mfu = {};
  const std::vector<LogRow> read = read_run_log(log(text_of(rows)));
  EXPECT_TRUE(std::isnan(read[1].loss));
  EXPECT_TRUE(std::isnan(read[1].grad_norm));
  EXPECT_TRUE(std::isnan(read[1].metrics["rewards/margins"].get<double>()));
  EXPECT_TRUE(read[1].skipped);
  EXPECT_FALSE(read[1].mfu);
  EXPECT_EQ(read[2].loss, rows[2].loss);
}

TEST_F(RunLogTest, ADamagedLineIsNamedByItsNumber) {
  const std::vector<LogRow> rows = drawn_rows(rng_, 5);
  const std::string third = rows[2].line().dump();
  const auto with = [&](const std::string& line) { return outcome(text_of({rows[0], rows[1]}) + line + "\n" + text_of({rows[3], rows[4]})); };
  EXPECT_EQ(with(third), "ok");
  const auto changed = [&](const std::string& key, const Json& value) {
    Json row = rows[2].line();
    row[key] = value;
    return with(row.dump());
  };
  const auto without = [&](const std::string& key) {
    Json row = rows[2].line();
    row.erase(key);
    return with(row.dump());
  };
  for (const std::string& bad :
       {with(third.substr(0, third.size() / 2)), with(""), with("[1]"), with(third + third), changed("loss", "low"), changed("current_steps", -1),
        changed("current_steps", 2), changed("elapsed_time", "1:60:00"), changed("elapsed_time", "12 s"), changed("peak_rss_bytes", 1.5),
        changed("rewards/margins", "many"), without("loss"), without("current_steps"), without("elapsed_time")}) {
    EXPECT_NE(bad.find("trainer_log.jsonl:3"), std::string::npos) << bad;
    EXPECT_EQ(bad.find("ok"), std::string::npos) << bad;
  }
  EXPECT_NE(changed("current_steps", 2).find("must be after 2"), std::string::npos);
  EXPECT_NE(io::outcome_of([&] { read_run_log(folder_ / "no.jsonl"); }).find("no.jsonl"), std::string::npos);
}

class RunHistoryTest : public ::testing::Test {
 protected:
  // A folder of a run as it is left, with a checkpoint's words and a result if wanted.
  std::string make_run(const std::string& name, const std::vector<LogRow>& rows, const Json& state = {}, bool result = false) {
    folder_.write(name + "/.lock", "");
    folder_.write(name + "/trainer_log.jsonl", text_of(rows));
    if (!state.is_null()) folder_.write(fmt::format("{}/checkpoint-{}/trainer_state.json", name, state["global_step"].get<int64_t>()), state.dump());
    if (result) folder_.write(name + "/adapter_config.json", R"({"base_model_name_or_path": "models/base.gguf"})");
    return folder_ / name;
  }
  TemporaryFolder folder_;
  Rng rng_{testing::test_seed()};
};

TEST_F(RunHistoryTest, FiguresAreThoseOfTheLogAndTheCheckpoint) {
  std::vector<LogRow> rows = drawn_rows(rng_, 20);
  rows[19].loss = kNan;
  rows[19].skipped = true;
  rows[7].loss = 0.01;
  for (size_t i = 10; i < 20; ++i) rows[i].elapsed_seconds -= 600;  // another process
  const Json state = {{"global_step", 20}, {"max_steps", 20}, {"fingerprint", {{"method", "lora:r=4"}, {"optimizer", "adamw"}, {"model", "0123456789abcdef"}}}};
  const RunHistory run = read_run(make_run("a", rows, state, true));
  EXPECT_EQ(run.state, RunState::finished);
  EXPECT_EQ(run.method, "lora:r=4");
  EXPECT_EQ(run.model, "sha256:0123456789ab");
  EXPECT_EQ(run.steps, 20);
  EXPECT_EQ(run.skipped(), 1);
  EXPECT_EQ(run.first_loss(), rows[0].loss);
  EXPECT_EQ(run.last_loss(), rows[18].loss);
  EXPECT_EQ(run.lowest_loss()->step, 8);
  EXPECT_EQ(run.eval_loss(), rows[19].eval_loss);
  EXPECT_EQ(run.seconds(), rows[9].elapsed_seconds + rows[19].elapsed_seconds);
  EXPECT_EQ(run.peak_rss_bytes(), rows[19].peak_rss_bytes);
  int below = 0;
  for (const LogRow& row : rows) below += row.tokens_per_second < run.tokens_per_second();
  EXPECT_EQ(below, 10);
  folder_.write("a/checkpoint-20/adapter_config.json", R"({"base_model_name_or_path": "models/base.gguf"})");
  EXPECT_EQ(read_run(folder_ / "a").model, "models/base.gguf");
  EXPECT_EQ(to_json(run)["rows"].size(), 20u);
}

TEST_F(RunHistoryTest, ARunIsRunningWhileItsLockIsHeldAndAskingKeepsNobodyOut) {
  const std::vector<LogRow> rows = drawn_rows(rng_, 4);
  const std::string path = make_run("a", rows, {}, true);
  EXPECT_EQ(read_run(path).state, RunState::finished);
  {
    const RunFolder trains(path, Existing::resume);
    EXPECT_EQ(read_run(path).state, RunState::running);
  }
  EXPECT_EQ(read_run(path).state, RunState::finished);
  EXPECT_EQ(read_run(make_run("b", {rows[0], rows[1]}, {}, true)).state, RunState::stopped);
  EXPECT_EQ(read_run(make_run("c", rows)).state, RunState::stopped);  // of no result
  EXPECT_EQ(read_run(make_run("d", {})).state, RunState::stopped);
  // Onlookers without end beside it, a trainer gets the lock.
  const pid_t onlooker = ::fork();
  if (onlooker == 0) {
    while (true) is_training(path);
  }
  for (int i = 0; i < 50; ++i) EXPECT_EQ(io::outcome_of([&] { RunFolder(path, Existing::resume); }), "ok");
  ::kill(onlooker, SIGKILL);
  ::waitpid(onlooker, nullptr, 0);
}

TEST_F(RunHistoryTest, RunsAreFoundInAFolderOfThemAndNamedApart) {
  const std::vector<LogRow> rows = drawn_rows(rng_, 2);
  for (const char* name : {"x/first/out", "x/second/out", "x/third", "y/third"}) make_run(name, rows);
  make_run("x/third/checkpoint-2/inside", rows);  // is that run's
  fs::create_symlink(folder_.path(), folder_ / "x/around");
  std::vector<std::string> names;
  for (const RunHistory& run : read_runs({folder_ / "x", folder_ / "y", folder_ / "x/third"})) names.push_back(run.name);
  EXPECT_EQ(names, (std::vector<std::string>{"first/out", "second/out", "x/third", "y/third"}));
  fs::create_directories(folder_ / "empty/below");
  EXPECT_NE(io::outcome_of([&] { read_runs({folder_ / "empty"}); }).find("has a trainer_log.jsonl"), std::string::npos);
  EXPECT_NE(io::outcome_of([&] { read_runs({folder_ / "nowhere"}); }).find("does not exist"), std::string::npos);
  EXPECT_NE(io::outcome_of([&] { read_runs({folder_ / "x/third/trainer_log.jsonl"}); }).find("is no folder"), std::string::npos);
}

TEST(RunCurves, AGapStaysAGapAndMeansAreOfWhatIsFinite) {
  std::vector<CurvePoint> points;
  for (int i = 0; i < 100; ++i) points.push_back({static_cast<double>(i), i >= 40 && i < 60 ? kNan : i == 5 ? kNan : static_cast<double>(i)});
  const std::vector<CurvePoint> few = thinned(points, 10);
  ASSERT_EQ(few.size(), 10u);
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(few[static_cast<size_t>(i)].step, 10 * i + 4.5);
    if (i == 4 || i == 5) {
      EXPECT_TRUE(std::isnan(few[static_cast<size_t>(i)].value));
    } else {
      EXPECT_NEAR(few[static_cast<size_t>(i)].value, i == 0 ? (45 - 5) / 9.0 : 10 * i + 4.5, 1e-12);
    }
  }
  EXPECT_EQ(thinned(points, 100).size(), 100u);
}

// The line of a chart as rows by column, -1 where there is nothing.
std::vector<int> line_of(const std::string& chart, const std::string& mark) {
  std::vector<int> rows;
  std::istringstream lines(chart);
  std::string line;
  for (int row = -1; std::getline(lines, line); ++row) {
    const size_t axis = std::min(line.find("\xE2\x94\x82"), line.find("\xE2\x94\xA4"));  // │ ┤
    if (axis == std::string::npos) continue;
    for (size_t i = axis + 3; i < line.size(); ++i) {
      const size_t column = i - axis - 3;
      if (line.compare(i, mark.size(), mark) != 0) continue;
      rows.resize(std::max(rows.size(), column + 1), -1);
      rows[column] = row;
    }
  }
  return rows;
}

TEST_F(RunHistoryTest, TextChartsHaveEachRunWhereItsNumbersAre) {
  std::vector<LogRow> falling = drawn_rows(rng_, 60), rising = falling;
  for (size_t i = 0; i < 60; ++i) {
    falling[i].loss = 2 - static_cast<double>(i) / 60;
    rising[i].loss = 1 + static_cast<double>(i) / 60;
    falling[i].has_eval = rising[i].has_eval = false;
    if (i >= 20 && i < 30) rising[i].loss = kNan;
  }
  std::vector<RunHistory> runs = {read_run(make_run("falls", falling)), read_run(make_run("rises", rising))};
  runs[0].name = "falls";
  runs[1].name = "rises";
  const std::string charts = runs_charts(runs, 80), first = charts.substr(1, charts.find("\n\n") - 1);
  EXPECT_NE(first.find("a: falls  b: rises"), std::string::npos) << first;
  const std::vector<int> down = line_of(first, "a"), up = line_of(first, "b");
  for (size_t i = 1; i < down.size(); ++i) EXPECT_TRUE(down[i] < 0 || down[i - 1] < 0 || down[i] >= down[i - 1]) << first;
  EXPECT_GT(down.back(), down.front());
  EXPECT_LT(up.back(), up.front());
  EXPECT_GE(std::count(up.begin(), up.end(), -1), 8) << first;  // a sixth of the columns
  for (const char* title : {"learning rate", "gradient norm", "tokens a second", "model FLOP utilisation, %", "peak memory", "rewards/margins"})
    EXPECT_NE(charts.find(title), std::string::npos) << title;
  std::istringstream lines(charts);
  for (std::string line; std::getline(lines, line);) {
    const auto characters = std::count_if(line.begin(), line.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
    EXPECT_LE(characters, 80) << line;
  }
}

// Hostile numbers and names end, in text and as a page that Python's parser finds well-formed and that names nothing outside.
TEST_F(RunHistoryTest, PagesAreWellFormedWhateverTheLogsHold) {
  std::vector<RunHistory> runs;
  for (const int64_t count : {0, 1, 2, 3000}) {
    std::vector<LogRow> rows = drawn_rows(rng_, count, 10);
    for (size_t i = 0; i < rows.size(); i += 7) rows[i].loss = kNan;
    if (count == 2) rows[1].loss = 1e300, rows[1].grad_norm = 0, rows[0].tokens_per_second = 1e-300;
    for (LogRow& row : rows) row.metrics["</script><script>alert(1)</script>"] = 1;
    runs.push_back(read_run(make_run(fmt::format("r{}", count), rows)));
    runs.back().name = runs.back().method = runs.back().model = "</title></script><script>alert(1)</script>\x1b[31m|\"'\xFF";
  }
  const std::string text = runs_table(runs) + runs_charts(runs, 80);
  EXPECT_EQ(std::count_if(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 && c != '\n'; }), 0);
  const std::string file = folder_.write("page.html", runs_page(runs)), found = file + ".json";
  ASSERT_EQ(std::system(fmt::format("'{}' '{}/src/eval/report_test_check.py' '{}' > '{}'", testing::python(), FRUGAL_SOURCE_DIR, file, found).c_str()), 0);
  const Json page = parse_json(read_text_file(found, size_t{64} << 20), "report_test_check.py");
  EXPECT_EQ(page["figures"], 8);  // six, and two of the metrics
  const std::string html = read_text_file(file, size_t{64} << 20);
  EXPECT_EQ(html.find("<script>alert"), std::string::npos);
  EXPECT_LT(html.size(), size_t{1} << 20);  // 3,000 rows are thinned
  for (const char* wrong : {"nan", "inf", "NaN\"", "e+3"})
    EXPECT_EQ(html.substr(html.find("<figure"), html.find("</div>\n", html.find("<figure")) - html.find("<figure")).find(wrong), std::string::npos) << wrong;
  EXPECT_NE(runs_page({runs[0]}).find("Nothing is logged yet"), std::string::npos);
}

}  // namespace
}  // namespace frugal::train
