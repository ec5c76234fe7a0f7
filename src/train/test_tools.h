// Training runs that transformers makes as well (tests/oracle/run_training.py), and their data.
#pragma once

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/Allocator.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "base/rng.h"
#include "models/test_tools.h"
#include "train/clip.h"
#include "train/language_modeling.h"
#include "train/optimizer.h"
#include "train/schedule.h"

namespace frugal::train {

inline data::Dataset random_dataset(Rng& rng, int64_t vocab, int examples, int64_t longest) {
  data::Dataset dataset;
  for (int i = 0; i < examples; ++i) {
    const int64_t length = rng.between(2, longest);
    for (int64_t t = 0; t < length; ++t) {
      dataset.tokens.push_back(static_cast<int32_t>(rng.below(static_cast<uint64_t>(vocab))));
      dataset.trained.push_back(t > 0 && (t == 1 || rng.below(3) > 0));
    }
    dataset.offsets.push_back(dataset.tokens.size());
  }
  dataset.fingerprint = "random";
  return dataset;
}

inline void clear(const std::vector<Parameter>& parameters) {
  for (const Parameter& parameter : parameters) parameter.tensor.mutable_grad() = at::Tensor();
}

// Bytes that this thread has allocated and not freed since it was made.
class LiveBytes : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, int64_t size, size_t, size_t, c10::Device) override { bytes += size; }
  bool memoryProfilingEnabled() const override { return true; }
  int64_t bytes = 0;
};

struct RunShape {
  int steps = 20, size = 3;
  double rate = 1e-3, decay = 0.1, clip = 1;
  at::ScalarType activations = at::kFloat;
};

inline void write_data(const std::string& path, const data::Dataset& dataset, const RunShape& run) {
  const std::vector<int32_t> trained(dataset.trained.begin(), dataset.trained.end()), offsets(dataset.offsets.begin(), dataset.offsets.end());
  const std::vector<float> options = {static_cast<float>(run.steps), static_cast<float>(run.size),
                                      static_cast<float>(run.rate),  static_cast<float>(run.decay),
                                      static_cast<float>(run.clip),  run.activations == at::kFloat ? 32.0f : run.activations == at::kHalf ? 16.0f : 8.0f};
  io::write_safetensors(path,
                        {io::owned_tensor<int32_t>("tokens", "I32", {std::ssize(dataset.tokens)}, dataset.tokens),
                         io::owned_tensor<int32_t>("trained", "I32", {std::ssize(trained)}, trained),
                         io::owned_tensor<int32_t>("offsets", "I32", {std::ssize(offsets)}, offsets), io::owned_tensor<float>("options", "F32", {6}, options)});
}

// Trains as the oracle did and compares its gradients of the first step, its losses and norms (ten times as far) in parts of `tolerance`.
inline void expect_same_run(nn::Model& model, const std::vector<Parameter>& parameters, const data::Dataset& dataset,
                            const std::map<std::string, at::Tensor>& want, const RunShape& run, double tolerance = 1e-4) {
  const auto& row = optimizer_table().at("adamw");
  const auto optimizer = row.function(parameters, Options(row.id, row.options, {{"weight_decay", fmt::format("{}", run.decay)}}));
  const Options schedule("schedule", schedule_options(), {});
  LanguageModeling objective(model, dataset, nullptr, {});
  for (int step = 0; step < run.steps; ++step) {
    clear(parameters);
    std::vector<MicroBatch> batches;
    int64_t targets = 0;
    for (int i = 0; i < run.size; ++i) {
      const uint64_t id = static_cast<uint64_t>(step * run.size + i) % dataset.size();
      const auto trained = dataset.example(id).trained;
      batches.push_back({{id}, 0, std::count(trained.begin(), trained.end(), 1)});
      targets += batches.back().targets;
    }
    // The first step as micro-batches, the others as one: it is the same.
    if (step > 0) batches = {{{batches[0].examples[0], batches[1].examples[0], batches[2].examples[0]}, 0, targets}};
    double loss = 0;
    for (const MicroBatch& batch : batches) loss += objective.accumulate(batch, 1.0 / static_cast<double>(targets), 0) / static_cast<double>(targets);
    if (step == 0) {
      for (const Parameter& parameter : parameters) {
        const auto found = want.find("grad." + parameter.name);
        ASSERT_NE(found, want.end()) << parameter.name;
        EXPECT_LT(models::relative_difference(parameter.tensor.grad(), found->second), tolerance) << parameter.name;
      }
    }
    EXPECT_NEAR(loss, want.at("losses")[step].item<double>(), tolerance * loss) << "step " << step;
    EXPECT_NEAR(clip_gradients(parameters, run.clip), want.at("norms")[step].item<double>(), 10 * tolerance * want.at("norms")[step].item<double>())
        << "step " << step;
    const at::NoGradGuard no_grad;
    optimizer->step(run.rate * schedule_factor(schedule, step, run.steps));
  }
}

}  // namespace frugal::train
