// A run that tests of the trainer break: an objective whose steps can be set, all that one process has, and its folder.
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/log.h"
#include "base/progress.h"
#include "base/rng.h"
#include "io/test_tools.h"
#include "train/trainer.h"

namespace frugal::train {

using at::Tensor;
using io::TemporaryFolder;

// Mean squared distance of (weights x + noise) to each example's target; what happens at a step can be set.
class Quadratic : public Objective {
 public:
  explicit Quadratic(const std::vector<Parameter>& parameters, size_t examples = 11) : parameters_(parameters), examples_(examples) {}
  std::vector<MicroBatch> epoch(int64_t epoch) override {
    std::vector<MicroBatch> batches;
    const size_t size = static_cast<size_t>(epoch) < sizes.size() ? sizes[static_cast<size_t>(epoch)] : examples_;
    for (size_t i = 0; i < size; ++i) batches.push_back({{(i * 7 + static_cast<size_t>(epoch)) % examples_}, 3, 2, flops});
    return batches;
  }
  double accumulate(const MicroBatch& batch, double scale, uint64_t seed) override {
    ++calls;
    for (const uint64_t id : batch.examples) learned.push_back(id);
    if (before) before(calls);
    Rng rng(seed);
    Tensor loss = at::zeros({}, at::kDouble);
    for (const Parameter& parameter : parameters_) {
      const Tensor target = at::full({}, static_cast<double>(batch.examples[0]) + 0.1 * rng.normal());
      loss = loss + (parameter.tensor - target).square().sum().to(at::kDouble);
    }
    loss = loss * 2 * factor;
    (loss * scale).backward();
    return loss.item<double>();
  }
  double loss(const MicroBatch& batch, uint64_t seed) override {
    ++calls;
    if (before) before(calls);
    const double target = static_cast<double>(batch.examples[0]) + 0.1 * Rng(seed).normal();
    double loss = 0;
    for (const Parameter& parameter : parameters_) loss += (parameter.tensor - target).square().sum().item<double>();
    return 2 * factor * loss;
  }
  std::optional<double> evaluate() override {
    if (before_evaluation) before_evaluation(++evaluations);
    return parameters_[0].tensor.square().mean().item<double>();
  }
  Json fingerprint() const override { return {{"data", data}}; }

  std::function<void(int64_t call)> before, before_evaluation;
  std::vector<size_t> sizes;  // of the first epochs, where they are not all the same
  double factor = 1, flops = 0;
  int64_t calls = 0, evaluations = 0;
  std::string data = "quadratic";
  std::vector<uint64_t> learned;

 private:
  const std::vector<Parameter>& parameters_;
  size_t examples_;
};

struct TestOptions {
  std::string output;
  TrainerOptions options;
  bool resume = false;
  CheckpointFiles files;
};

// All that one process has: parameters, optimizer, objective.
struct Process {
  explicit Process(const std::string& optimizer_text = "adamw") {
    for (const int size : {3, 5}) {
      const Tensor values = at::arange(size, at::kFloat).mul_(0.1).reshape({1, size}).requires_grad_();
      parameters.push_back({fmt::format("w{}", size), values, 1, true});
    }
    const StepText text = parse_step(optimizer_text);
    const auto& row = optimizer_table().at(text.id);
    optimizer = row.function(parameters, Options(row.id, row.options, text.options));
  }
  TrainResult run(TestOptions test) {
    TrainerOptions& options = test.options;
    if (options.schedule.canonical().empty()) options.schedule = Options("schedule", schedule_options(), {{"warmup_steps", "4"}});
    const RunFolder folder(test.output, test.resume ? Existing::resume : Existing::refuse);
    return train(objective, parameters, *optimizer, folder, options, {{"method", "test"}}, test.files);
  }
  std::string state() {
    std::string all;
    const auto add = [&](const Tensor& tensor) { all.append(static_cast<const char*>(tensor.detach().contiguous().const_data_ptr()), tensor.nbytes()); };
    for (const Parameter& parameter : parameters) add(parameter.tensor);
    optimizer->for_each_state([&](const std::string&, Tensor& state) { add(state); });
    return all;
  }
  std::vector<Parameter> parameters;
  std::unique_ptr<Optimizer> optimizer;
  Quadratic objective{parameters};
};

inline TestOptions options_for(const std::string& output) {
  TestOptions test{output, {}, false, {}};
  TrainerOptions& options = test.options;
  options.num_epochs = 3;
  options.gradient_accumulation_steps = 2;
  options.learning_rate = 0.05;
  options.save_steps = 4;
  options.seed = 5;
  return test;
}

inline std::vector<std::pair<int64_t, double>> logged(const std::string& output) {
  std::vector<std::pair<int64_t, double>> rows;
  std::ifstream file(output + "/trainer_log.jsonl");
  for (std::string line; std::getline(file, line);) {
    const Json row = parse_json(line, "log");
    rows.emplace_back(row["current_steps"].get<int64_t>(), row["loss"].get<double>());
  }
  return rows;
}

class TrainerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    set_log_sink([this](LogLevel, std::string_view message) { said_ += std::string(message) + "\n"; }, LogLevel::warning);
  }
  void TearDown() override {
    set_log_sink({}, LogLevel::off);
    clear_stop();
  }
  std::string said_;
  TemporaryFolder folder_;
};

}  // namespace frugal::train
