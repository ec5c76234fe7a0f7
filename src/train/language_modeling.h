// Next-token prediction over tokenized examples: pre-training and supervised tuning.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

#include "data/dataset.h"
#include "data/order.h"
#include "nn/model.h"
#include "train/flops.h"
#include "train/hidden_states.h"
#include "train/objective.h"

namespace frugal::train {

struct LanguageModelingOptions {
  data::BatchOptions batches;
  Recompute recompute;
  std::function<void(uint64_t seed)> seed_randomness;  // before each micro-batch (dropout); may be empty
  std::function<void(bool training)> set_training;     // around evaluation; may be empty
  TrainingFlops flops;                                 // of the model; as it is by default: not known
  at::ScalarType activations = at::kFloat;             // what the gradient is computed with (ops/autocast.h); evaluation is in float32
};

// Micro-batches of an epoch of `dataset` (data/order.h), with what they hold counted; targets are tokens, or pairs where it has pairs.
std::vector<MicroBatch> micro_batches(const data::Dataset& dataset, const data::BatchOptions& options, int64_t epoch, const TrainingFlops& flops = {});

// What micro_batches depends on, for Objective::fingerprint.
Json fingerprint_of(const data::Dataset& dataset, const data::BatchOptions& options);

// The examples as one batch, each a sequence of its own: no padding, and no token after the last one that a target needs.
// targets [tokens] int64: the next token where it is learned, else kIgnored.
struct TokenBatch {
  nn::Batch batch;
  at::Tensor targets;
};
TokenBatch token_batch(std::span<const data::Example> examples);
TokenBatch token_batch(const data::Dataset& dataset, std::span<const uint64_t> examples);

class LanguageModeling : public Objective {
 public:
  // All are referred to; held_out may be null.
  LanguageModeling(const nn::Model& model, const data::Dataset& dataset, const data::Dataset* held_out, LanguageModelingOptions options);
  std::vector<MicroBatch> epoch(int64_t epoch) override;
  double accumulate(const MicroBatch& batch, double scale, uint64_t seed) override;
  double loss(const MicroBatch& batch, uint64_t seed) override;
  void accumulate_drawn(const MicroBatch& batch, double scale, uint64_t seed) override;
  std::optional<double> evaluate() override;
  Json fingerprint() const override;

 protected:
  const nn::Model& model_;
  const data::Dataset& dataset_;
  const data::Dataset* held_out_;
  const LanguageModelingOptions options_;

 private:
  // drawn: with labels of the model's own.
  double backward(const MicroBatch& batch, double scale, uint64_t seed, bool drawn);
};

}  // namespace frugal::train
