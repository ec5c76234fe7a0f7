#include "train/language_modeling.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>

#include "base/error.h"
#include "ops/autocast.h"
#include "train/cross_entropy.h"

namespace frugal::train {

using at::Tensor;

namespace {

// Tokens that go through the model: those before the last one that is learned. Not positive: nothing is.
int64_t tokens_to_run(const data::Example& example) {
  int64_t count = std::ssize(example.tokens);
  while (count > 0 && !example.trained[static_cast<size_t>(count - 1)]) --count;
  return count - 1;
}

}  // namespace

std::vector<MicroBatch> micro_batches(const data::Dataset& dataset, const data::BatchOptions& options, int64_t epoch, const TrainingFlops& flops) {
  std::vector<MicroBatch> result;
  for (auto& examples : data::batches(dataset, options, static_cast<uint64_t>(epoch))) {
    MicroBatch batch;
    batch.examples = std::move(examples);
    const uint64_t share = dataset.pairs ? 2 : 1;
    for (const uint64_t id : batch.examples) {
      for (uint64_t part = share * id; part < share * (id + 1); ++part) {
        const data::Example example = dataset.example(part);
        batch.tokens += std::ssize(example.tokens);
        const int64_t learned = std::count(example.trained.begin(), example.trained.end(), 1);
        batch.targets += dataset.pairs ? 0 : learned;
        if (const int64_t run = tokens_to_run(example); run > 0) batch.flops += flops.of(run, learned);
      }
    }
    if (dataset.pairs) batch.targets = std::ssize(batch.examples);
    result.push_back(std::move(batch));
  }
  return result;
}

Json fingerprint_of(const data::Dataset& dataset, const data::BatchOptions& options) {
  return {{"data", dataset.fingerprint},
          {"micro_batch_size", options.micro_batch_size},
          {"sequence_len", options.sequence_len},
          {"sample_packing", options.sample_packing}};
}

TokenBatch token_batch(std::span<const data::Example> examples) {
  TokenBatch result;
  std::vector<int64_t> targets;
  for (const data::Example& example : examples) {
    const int64_t count = tokens_to_run(example);
    if (count <= 0) continue;
    result.batch.sequences.push_back({std::ssize(result.batch.tokens), count, nullptr});
    result.batch.tokens.insert(result.batch.tokens.end(), example.tokens.begin(), example.tokens.begin() + count);
    for (size_t i = 1; i <= static_cast<size_t>(count); ++i) targets.push_back(example.trained[i] ? example.tokens[i] : kIgnored);
  }
  result.targets = at::tensor(targets, at::kLong);
  return result;
}

TokenBatch token_batch(const data::Dataset& dataset, std::span<const uint64_t> examples) {
  std::vector<data::Example> chosen;
  for (const uint64_t id : examples) chosen.push_back(dataset.example(id));
  return token_batch(chosen);
}

LanguageModeling::LanguageModeling(const nn::Model& model, const data::Dataset& dataset, const data::Dataset* held_out, LanguageModelingOptions options)
    : model_(model), dataset_(dataset), held_out_(held_out), options_(std::move(options)) {}

std::vector<MicroBatch> LanguageModeling::epoch(int64_t epoch) { return micro_batches(dataset_, options_.batches, epoch, options_.flops); }

double LanguageModeling::backward(const MicroBatch& batch, double scale, uint64_t seed, bool drawn) {
  if (options_.seed_randomness) options_.seed_randomness(seed);
  const TokenBatch tokens = token_batch(dataset_, batch.examples);
  if (tokens.batch.tokens.empty()) return 0;
  const ops::Autocast autocast(options_.activations);
  const Tensor hidden = hidden_states(model_, tokens.batch, options_.recompute);
  const Tensor loss = cross_entropy(model_, hidden, drawn ? drawn_targets(model_, hidden, tokens.targets, seed) : tokens.targets, scale);
  torch::autograd::backward({loss}, {});
  return loss.item<double>() / scale;
}

double LanguageModeling::accumulate(const MicroBatch& batch, double scale, uint64_t seed) { return backward(batch, scale, seed, false); }
void LanguageModeling::accumulate_drawn(const MicroBatch& batch, double scale, uint64_t seed) { backward(batch, scale, seed, true); }

double LanguageModeling::loss(const MicroBatch& batch, uint64_t seed) {
  const at::NoGradGuard no_grad;
  if (options_.seed_randomness) options_.seed_randomness(seed);
  const TokenBatch tokens = token_batch(dataset_, batch.examples);
  if (tokens.batch.tokens.empty()) return 0;
  const ops::Autocast autocast(options_.activations);
  return cross_entropy(model_, hidden_states(model_, tokens.batch), tokens.targets, 1).item<double>();
}

std::optional<double> LanguageModeling::evaluate() {
  if (!held_out_) return {};
  const at::NoGradGuard no_grad;
  if (options_.set_training) options_.set_training(false);
  double sum = 0;
  int64_t targets = 0;
  for (const MicroBatch& batch : micro_batches(*held_out_, options_.batches, 0)) {
    const TokenBatch tokens = token_batch(*held_out_, batch.examples);
    if (tokens.batch.tokens.empty()) continue;
    sum += cross_entropy(model_, hidden_states(model_, tokens.batch, options_.recompute), tokens.targets, 1).item<double>();
    targets += batch.targets;
  }
  if (options_.set_training) options_.set_training(true);
  if (targets == 0) return {};
  return sum / static_cast<double>(targets);
}

Json LanguageModeling::fingerprint() const { return fingerprint_of(dataset_, options_.batches); }

}  // namespace frugal::train
