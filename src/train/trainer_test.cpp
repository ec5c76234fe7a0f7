// Runs that stop, break and go on: the torture list's section K and the faults T6, T7, T8, T10, T11, T13 by number (robustness.md).
#include "train/trainer.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>

#include "base/file.h"
#include "base/log.h"
#include "base/progress.h"
#include "io/test_tools.h"
#include "oracle.h"
#include "train/checkpoint.h"
#include "train/trainer_test_support.h"

namespace frugal::train {
namespace fs = std::filesystem;
namespace {

TEST_F(TrainerTest, StepsEpochsAndLossesAreThoseOfTheDefinition) {
  Process process;
  const TrainResult result = process.run(options_for(folder_ / "out"));
  EXPECT_EQ(result.total_steps, 18);  // 11 micro-batches an epoch, two a step
  EXPECT_EQ(result.steps, 18);
  EXPECT_EQ(result.tokens, 3 * 11 * 3);
  EXPECT_TRUE(result.has_eval);
  // Each example once an epoch.
  for (int epoch = 0; epoch < 3; ++epoch) {
    std::vector<uint64_t> part(process.objective.learned.begin() + epoch * 11, process.objective.learned.begin() + (epoch + 1) * 11);
    std::sort(part.begin(), part.end());
    for (uint64_t i = 0; i < 11; ++i) EXPECT_EQ(part[i], i);
  }
  const auto rows = logged(folder_ / "out");
  ASSERT_EQ(rows.size(), 18u);
  EXPECT_EQ(rows.back().second, result.loss_last);
  double first = 0, last = 0;
  for (size_t i = 0; i < 6; ++i) {
    first += rows[i].second;
    last += rows[12 + i].second;
  }
  EXPECT_LT(last, first);
  EXPECT_EQ(said_, "");
}

// T10, T11: a stop in any micro-batch of any step (accumulation, warm-up, ends of epochs, the last step), a resume, and all is as if nothing was.
TEST_F(TrainerTest, StoppedAnywhereAndResumedEqualsTheWholeRunToTheBit) {
  for (const std::string optimizer : {"adamw", "sgd:momentum=0.9", "schedule-free", "fp8-lm"}) {
    Process whole(optimizer);
    TestOptions unbroken = options_for(folder_ / ("whole" + optimizer.substr(0, 3)));
    unbroken.options.eval_steps = 5;
    whole.run(unbroken);
    const auto rows = logged(folder_ / ("whole" + optimizer.substr(0, 3)));
    for (int64_t stop = 1 + static_cast<int64_t>(testing::test_seed() % 3); stop <= 33; stop += optimizer == "adamw" ? 3 : 8) {
      const std::string output = folder_ / fmt::format("{}-{}", optimizer.substr(0, 3), stop);
      TestOptions options = options_for(output);
      // Others get the point of evaluation while the run goes on from where it was.
      options.files = [](const std::string& folder) { std::ofstream(folder + "/for-others") << "whole"; };
      options.options.eval_steps = 5;
      {
        Process first(optimizer);
        first.objective.before = [&](int64_t call) {
          if (call != stop) return;
          request_stop();
          stop_point();
        };
        const TrainResult result = first.run(options);
        EXPECT_TRUE(result.stopped);
        EXPECT_LT(result.steps, 18);
      }
      options.resume = true;
      {
        Process second(optimizer);  // and once more, right before the end
        second.objective.before = [&](int64_t call) {
          if (call < 3) return;
          request_stop();
          stop_point();
        };
        second.run(options);
      }
      clear_stop();
      Process third(optimizer);
      third.run(options);
      ASSERT_EQ(third.state(), whole.state()) << optimizer << " stopped in micro-batch " << stop;
      ASSERT_EQ(logged(output), rows) << optimizer << " stopped in micro-batch " << stop;
    }
  }
}

// A stop within an evaluation: its row and its figure are not lost.
TEST_F(TrainerTest, AStopDuringAnEvaluationIsMadeUpFor) {
  for (const std::string optimizer : {"adamw", "schedule-free"}) {
    Process whole(optimizer);
    TestOptions options = options_for(folder_ / ("whole" + optimizer));
    options.options.eval_steps = 6;
    const TrainResult want = whole.run(options);
    for (const int64_t at : {1, 3}) {
      options.output = folder_ / fmt::format("{}{}", optimizer, at);
      options.resume = false;
      Process first(optimizer);
      first.objective.before_evaluation = [&](int64_t call) {
        if (call != at) return;
        request_stop();
        stop_point();
      };
      EXPECT_TRUE(first.run(options).stopped);
      clear_stop();
      options.resume = true;
      Process second(optimizer);
      const TrainResult result = second.run(options);
      EXPECT_EQ(result.eval_loss, want.eval_loss);
      EXPECT_EQ(second.state(), whole.state()) << optimizer << " at " << at;
      EXPECT_EQ(logged(options.output), logged(folder_ / ("whole" + optimizer))) << optimizer << " at " << at;
      Process third(optimizer);  // and nothing is made up for twice
      EXPECT_EQ(third.run(options).eval_loss, 0);
      EXPECT_EQ(logged(options.output), logged(folder_ / ("whole" + optimizer))) << optimizer << " at " << at;
    }
  }
}

TEST_F(TrainerTest, UtilisationIsWhatWasNeededOverWhatTheMachineCanDo) {
  Process process;
  process.objective.flops = 3e6;
  TestOptions options = options_for(folder_ / "out");
  options.options.peak_flops = 1e12;
  process.run(options);
  for (const LogRow& row : read_run_log(folder_ / "out/trainer_log.jsonl")) {
    ASSERT_TRUE(row.mfu);
    EXPECT_NEAR(*row.mfu, 1e6 * row.tokens_per_second / 1e12, 1e-9 * *row.mfu);  // 3 tokens a micro-batch
  }
  Process without;
  without.objective.flops = 3e6;
  without.run(options_for(folder_ / "without"));
  for (const LogRow& row : read_run_log(folder_ / "without/trainer_log.jsonl")) EXPECT_FALSE(row.mfu);
}

// Packing gives epochs that differ.
TEST_F(TrainerTest, EpochsMayHaveDifferentNumbersOfMicroBatches) {
  Process process;
  process.objective.sizes = {5, 8, 2};
  const TrainResult result = process.run(options_for(folder_ / "out"));
  EXPECT_EQ(result.steps, 3 + 4 + 1);
  EXPECT_EQ(process.objective.learned.size(), 15u);
  Process part;
  part.objective.sizes = {5, 8, 2};
  TestOptions options = options_for(folder_ / "part");
  options.options.num_epochs = 1.5;
  EXPECT_EQ(part.run(options).steps, 3 + 2);
}

TEST_F(TrainerTest, GradientsOfAnyLengthAreTakenWhereTheyAreNotClipped) {
  Process process;
  TestOptions options = options_for(folder_ / "out");
  options.options.max_grad_norm = 0;
  EXPECT_EQ(process.run(options).steps, 18);
}

TEST_F(TrainerTest, AFolderThatHoldsNoRunIsLeftAlone) {
  const fs::path folder = std::string(folder_ / "mine");
  fs::create_directories(folder);
  std::ofstream(folder / "model.safetensors") << "precious";
  for (const Existing existing : {Existing::refuse, Existing::resume, Existing::replace}) {
    EXPECT_NE(io::outcome_of([&] { RunFolder run(folder, existing); }).find("no run of frugal's"), std::string::npos);
  }
  EXPECT_EQ(read_text_file((folder / "model.safetensors").string(), 100), "precious");
  const std::string run = folder_ / "run";
  Process process;
  process.run(options_for(run));
  fs::create_directories(run + "/checkpoint-mine");
  fs::create_directories(run + "/checkpoint-4.tmp.99");
  EXPECT_NE(io::outcome_of([&] { RunFolder again(run, Existing::refuse); }).find("--resume goes on"), std::string::npos);
  const RunFolder again(run, Existing::replace);
  EXPECT_FALSE(has_checkpoints(run));
  EXPECT_TRUE(fs::exists(run + "/checkpoint-mine"));
}

TEST_F(TrainerTest, AResultTakesThePlaceOfAnEarlierOneWithItsShards) {
  const RunFolder run(folder_ / "run", Existing::refuse);
  const fs::path output = run.path(), made = output / ".result";
  for (const char* name : {"model.safetensors.index.json", "model-00001-of-00002.safetensors", "config.json", "mine.txt"})
    std::ofstream(output / name) << "old";
  fs::create_directories(made);
  for (const char* name : {"config.json", "model.safetensors"}) std::ofstream(made / name) << "new";
  run.take_result(made);
  std::vector<std::string> left;
  for (const auto& entry : fs::directory_iterator(output)) left.push_back(entry.path().filename());
  std::sort(left.begin(), left.end());
  EXPECT_EQ(left, (std::vector<std::string>{".lock", "config.json", "mine.txt", "model.safetensors"}));
  EXPECT_EQ(read_text_file((output / "config.json").string(), 100), "new");
}

// As after kill -9: whatever was done since the last checkpoint is lost, log lines included.
TEST_F(TrainerTest, GoesOnFromTheLastCheckpointAfterADeath) {
  Process whole;
  whole.run(options_for(folder_ / "whole"));
  struct Death {};
  Process first;
  first.objective.before = [](int64_t call) {
    if (call == 15) throw Death{};
  };
  TestOptions options = options_for(folder_ / "out");
  EXPECT_THROW(first.run(options), Death);
  EXPECT_EQ(logged(folder_ / "out").size(), 7u);
  options.resume = true;
  Process second;
  EXPECT_EQ(second.run(options).first_step, 4);
  EXPECT_EQ(second.state(), whole.state());
  EXPECT_EQ(logged(folder_ / "out"), logged(folder_ / "whole"));
  // Resumed once more at its end, it has nothing to do and changes nothing.
  Process third;
  EXPECT_EQ(third.run(options).steps, 18);
  EXPECT_EQ(third.objective.calls, 0);
  EXPECT_EQ(third.state(), whole.state());
}

// T7: a step whose loss or gradient is not finite changes nothing; three in a row end the run, and no checkpoint has a number that is not finite.
TEST_F(TrainerTest, StepsThatAreNotFiniteAreSkippedAndThreeEndTheRun) {
  for (const double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    Process process;
    std::string before;
    process.objective.before = [&](int64_t call) {
      if (call == 5) before = process.state();
      if (call == 7) EXPECT_EQ(process.state(), before);
      process.objective.factor = call == 5 ? bad : 1;
    };
    const TrainResult result = process.run(options_for(folder_ / fmt::format("one{}", bad)));
    EXPECT_EQ(result.skipped, 1);
    EXPECT_EQ(result.steps, 18);
    EXPECT_NE(said_.find("step 3"), std::string::npos) << said_;
  }
  Process process;
  process.objective.before = [&](int64_t call) { process.objective.factor = call > 10 ? std::numeric_limits<double>::quiet_NaN() : 1; };
  const std::string output = folder_ / "three";
  EXPECT_THROW(process.run(options_for(output)), Error);
  const auto last = newest_checkpoint(output);
  ASSERT_TRUE(last);
  EXPECT_EQ(last->step, 7);  // the two that were skipped are counted
  Process weights;
  weights.parameters[0].tensor.mutable_data_ptr<float>()[0] = std::numeric_limits<float>::infinity();
  EXPECT_THROW(write_checkpoint(folder_ / "no", {1, {{"global_step", 1}}, {{"w", weights.parameters[0].tensor}}, {}}), Error);
  EXPECT_FALSE(fs::exists(folder_ / "no"));
}

// An optimizer that moves the parameters away for a while: a stop waits until they are back and the step is done.
TEST_F(TrainerTest, AStopAmidAStepByLossesIsResumedToTheBit) {
  Process whole("mezo");
  whole.run(options_for(folder_ / "whole"));
  for (const int64_t stop : {1, 10, 23}) {
    const std::string output = folder_ / fmt::format("stop{}", stop);
    Process first("mezo"), second("mezo");
    first.objective.before = [&](int64_t call) {
      if (call == stop) request_stop();
      stop_point();
    };
    const TrainResult result = first.run(options_for(output));
    EXPECT_TRUE(result.stopped);
    EXPECT_LT(result.steps, 18);
    clear_stop();
    TestOptions again = options_for(output);
    again.resume = true;
    second.run(again);
    EXPECT_EQ(second.state(), whole.state());
    EXPECT_EQ(logged(output), logged(folder_ / "whole"));
  }
}

std::vector<double> loss_scales(const std::string& output) {
  std::vector<double> scales;
  std::ifstream file(output + "/trainer_log.jsonl");
  for (std::string line; std::getline(file, line);) scales.push_back(parse_json(line, "log")["loss_scale"].get<double>());
  return scales;
}

// A scaled loss: the run is the same, to the bit (the scale is a power of two), but for steps that overflow, which are no failures.
TEST_F(TrainerTest, AScaledLossThatOverflowsIsScaledLessAndAResumedRunKnowsIt) {
  Process unscaled, scaled;
  unscaled.run(options_for(folder_ / "unscaled"));
  TestOptions options = options_for(folder_ / "scaled");
  options.options.scale_loss = true;
  scaled.run(options);
  EXPECT_EQ(scaled.state(), unscaled.state());
  EXPECT_EQ(loss_scales(folder_ / "scaled"), std::vector<double>(18, 65536));

  // Three steps whose gradients overflow, but for a scale of some thousand.
  const auto spiky = [](Process& process) { process.objective.before = [&](int64_t call) { process.objective.factor = call > 5 && call < 12 ? 1e34 : 1; }; };
  const auto options_to = [&](const std::string& output) {
    TestOptions test = options_for(output);
    test.options.scale_loss = true;
    test.options.spike_factor = 0;
    return test;
  };
  Process whole("sgd");
  spiky(whole);
  const TrainResult result = whole.run(options_to(folder_ / "whole"));
  const std::vector<double> scales = loss_scales(folder_ / "whole");
  ASSERT_EQ(scales.size(), 18u);
  EXPECT_EQ(scales.front(), 65536);
  EXPECT_LT(scales.back(), 65536);
  EXPECT_EQ(scales.back(), std::ldexp(65536, -static_cast<int>(result.skipped)));
  EXPECT_GT(result.skipped, 2);  // three in a row, and the run goes on
  EXPECT_EQ(said_, "");
  {
    Process first("sgd");
    spiky(first);
    const auto work = first.objective.before;
    first.objective.before = [&](int64_t call) {
      work(call);
      if (call != 15) return;
      request_stop();
      stop_point();
    };
    EXPECT_TRUE(first.run(options_to(folder_ / "stopped")).stopped);
    clear_stop();
  }
  Process second("sgd");
  TestOptions again = options_to(folder_ / "stopped");
  again.resume = true;
  second.run(again);
  EXPECT_EQ(loss_scales(folder_ / "stopped"), scales);
  EXPECT_EQ(second.state(), whole.state());

  // What overflows at any scale is a failure once the loss is scaled no more.
  Process hopeless;
  hopeless.objective.before = [&](int64_t) { hopeless.objective.factor = 1e39; };
  TestOptions end = options_to(folder_ / "hopeless");
  end.options.num_epochs = 5;
  EXPECT_THROW(hopeless.run(end), Error);
  const std::vector<double> last = loss_scales(folder_ / "hopeless");
  EXPECT_EQ(last.size(), 16u + 2);  // and the third of those whose scale is 1 or less ended it
}

// T8
TEST_F(TrainerTest, SpikesAreReportedWithTheirExamplesAndSkippedIfWanted) {
  for (const SpikePolicy policy : {SpikePolicy::report, SpikePolicy::skip}) {
    Process process;
    process.objective.before = [&](int64_t call) { process.objective.factor = call == 16 || call == 17 ? 1000 : 1; };
    TestOptions options = options_for(folder_ / fmt::format("out{}", static_cast<int>(policy)));
    options.options.spikes = policy;
    said_.clear();
    EXPECT_EQ(process.run(options).skipped, policy == SpikePolicy::skip ? 1 : 0);
    EXPECT_NE(said_.find("step 9"), std::string::npos) << said_;
    EXPECT_NE(said_.find(fmt::format("examples {}, {}", process.objective.learned[15], process.objective.learned[16])), std::string::npos) << said_;
  }
}

// T13
TEST_F(TrainerTest, ASecondTrainerOfOneFolderIsRefused) {
  Process process;
  bool tried = false;
  process.objective.before = [&](int64_t call) {
    if (call != 3) return;
    Process other;
    tried = true;
    const std::string ended = io::outcome_of([&] { other.run(options_for(folder_ / "out")); });
    EXPECT_NE(ended.find("another process"), std::string::npos) << ended;
    EXPECT_EQ(other.objective.calls, 0);
  };
  process.run(options_for(folder_ / "out"));
  EXPECT_TRUE(tried);
}

// T12, T14 and K5, K6: another run's checkpoint is not gone on with, unless that is wanted.
TEST_F(TrainerTest, AResumedRunMustBeTheSame) {
  const std::string output = folder_ / "out";
  Process first;
  first.run(options_for(output));
  TestOptions options = options_for(output);
  options.resume = true;
  const auto refused = [&](Process& process, const TestOptions& changed) { return io::outcome_of([&] { process.run(changed); }); };
  {
    Process process;
    process.objective.data = "other";
    EXPECT_NE(refused(process, options).find("objective/data was \"quadratic\", is \"other\" now"), std::string::npos);
  }
  TestOptions longer = options;
  longer.options.num_epochs = 4;
  Process process;
  EXPECT_NE(refused(process, longer).find("total_steps was 18, is 24 now"), std::string::npos);
  TestOptions skipping = options_for(folder_ / "skipping");
  skipping.options.spikes = SpikePolicy::skip;
  Process().run(skipping);
  skipping.resume = true;
  skipping.options.spikes = SpikePolicy::report;
  Process without;
  EXPECT_NE(refused(without, skipping).find("spike_factor was 10.0, is null now"), std::string::npos);
  Process other_shape;
  other_shape.parameters[0].tensor = at::zeros({1, 4}).requires_grad_();
  EXPECT_NE(refused(other_shape, options).find("w3 has another shape"), std::string::npos);
  Process other_optimizer("sgd:momentum=0.9");
  EXPECT_NE(refused(other_optimizer, options).find("optimizer states"), std::string::npos);
  Process wanted;
  wanted.objective.data = "other";
  options.options.allow_changes = true;
  EXPECT_EQ(refused(wanted, options), "ok");
  EXPECT_NE(said_.find("objective/data"), std::string::npos);
}

// K1-K4, K7, K8, T6: whatever is wrong with the newest checkpoint is said, and the one before it is used.
TEST_F(TrainerTest, BrokenCheckpointsAreRefusedLoudlyAndTheOneBeforeIsUsed) {
  const std::string output = folder_ / "out";
  Process process;
  TestOptions options = options_for(output);
  options.options.save_total_limit = 0;
  process.run(options);
  const fs::path newest = output + "/checkpoint-18", copy = folder_ / "copy";
  fs::copy(newest, copy, fs::copy_options::recursive);
  EXPECT_EQ(newest_checkpoint(output)->step, 18);
  int cases = 0;
  const auto expect_fallback = [&](const std::string& what) {
    ++cases;
    said_.clear();
    const auto found = newest_checkpoint(output);
    ASSERT_TRUE(found) << what;
    EXPECT_EQ(found->step, 16) << what;
    EXPECT_NE(said_.find("checkpoint-18"), std::string::npos) << what << ": " << said_;
    fs::remove_all(newest);
    fs::copy(copy, newest, fs::copy_options::recursive);
    EXPECT_TRUE(fs::exists(newest.string() + ".unusable")) << what;
  };
  std::vector<std::string> files;
  for (const auto& entry : fs::directory_iterator(newest)) files.push_back(entry.path().filename());
  ASSERT_EQ(files.size(), 4u);
  for (const std::string& file : files) {
    const auto size = fs::file_size(newest / file);
    fs::remove(newest / file);
    expect_fallback(file + " missing");
    for (uintmax_t length = 0; length < size; length += std::max<uintmax_t>(1, size / 9)) {
      fs::resize_file(newest / file, length);
      expect_fallback(fmt::format("{} cut at {}", file, length));
    }
    for (uintmax_t place = 0; place < size; place += std::max<uintmax_t>(1, size / 13)) {
      std::fstream stream(newest / file, std::ios::in | std::ios::out | std::ios::binary);
      stream.seekg(static_cast<std::streamoff>(place));
      const char old = static_cast<char>(stream.get());
      stream.seekp(static_cast<std::streamoff>(place));
      stream.put(static_cast<char>(old ^ 4));
      stream.close();
      // A bit of the manifest's own spaces or digits of sizes may leave it readable: then it must still be step 18 as written, or be refused.
      if (file == "manifest.json") {
        said_.clear();
        const auto found = newest_checkpoint(output);
        EXPECT_TRUE(found && (found->step == 16 || found->step == 18)) << place;
        fs::remove_all(newest);
        fs::copy(copy, newest, fs::copy_options::recursive);
      } else {
        expect_fallback(fmt::format("{} flipped at {}", file, place));
      }
    }
  }
  // K2: tensors of another step; K8: what a killed save left.
  fs::copy_file(output + "/checkpoint-16/parameters.safetensors", newest / "parameters.safetensors", fs::copy_options::overwrite_existing);
  expect_fallback("parameters of step 16");
  fs::copy_file(output + "/checkpoint-16/manifest.json", newest / "manifest.json", fs::copy_options::overwrite_existing);
  expect_fallback("manifest of step 16");
  const std::string manifest = read_text_file((newest / "manifest.json").string(), 1 << 20);
  const auto rewritten = [&](std::string_view from, std::string_view to) {
    std::string text = manifest;
    const size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    text.replace(at, from.size(), to);
    std::ofstream(newest / "manifest.json") << text;
  };
  rewritten("\"optimizer.safetensors\"", "\"../checkpoint-16/optimizer.safetensors\"");
  expect_fallback("a path that leads out");
  fs::create_directories(output + "/checkpoint-18.tmp.999");
  fs::create_directories(output + "/checkpoint-x");
  EXPECT_EQ(newest_checkpoint(output)->step, 18);
  rewritten("\"version\": 1", "\"version\": 7");
  EXPECT_NE(io::outcome_of([&] { newest_checkpoint(output); }).find("format version 7"), std::string::npos);  // not an older one in its place
  fs::remove_all(output + "/checkpoint-18");
  for (const auto& entry : fs::directory_iterator(output)) {
    if (fs::exists(entry.path() / "manifest.json")) fs::remove(entry.path() / "manifest.json");
  }
  EXPECT_NE(io::outcome_of([&] { newest_checkpoint(output); }).find("none of"), std::string::npos);
  EXPECT_GT(cases, 50);
}

TEST_F(TrainerTest, OldCheckpointsGoAndTheNewestStay) {
  Process process;
  process.run(options_for(folder_ / "out"));
  std::vector<std::string> left;
  for (const auto& entry : fs::directory_iterator(folder_ / "out")) {
    if (entry.path().filename().string().starts_with("checkpoint-")) left.push_back(entry.path().filename());
  }
  std::sort(left.begin(), left.end());
  EXPECT_EQ(left, (std::vector<std::string>{"checkpoint-16", "checkpoint-18"}));
}

// T3: where no checkpoint can be written the run goes on and tries again; at its end that is an error.
TEST_F(TrainerTest, ACheckpointThatCannotBeWrittenIsTriedAgain) {
  const std::string output = folder_ / "out";
  Process process;
  process.objective.before = [&](int64_t call) {
    if (call == 8) std::ofstream(output + "/checkpoint-4") << "in the way";  // of the rename
    if (call == 11) fs::remove(output + "/checkpoint-4");
  };
  TestOptions options = options_for(output);
  options.options.save_total_limit = 0;
  const std::string ended = io::outcome_of([&] { process.run(options); });
  EXPECT_EQ(ended, "ok") << said_;
  EXPECT_NE(said_.find("no checkpoint at step 4"), std::string::npos) << said_;
  EXPECT_TRUE(fs::exists(output + "/checkpoint-5/manifest.json"));
  EXPECT_TRUE(fs::exists(output + "/checkpoint-18/manifest.json"));
}

}  // namespace
}  // namespace frugal::train
