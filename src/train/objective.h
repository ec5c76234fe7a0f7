// What a training run minimizes: the trainer asks for the micro-batches of an epoch and for their gradients; supervised tuning, preferences,
// distillation are Objectives.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "train/step_hook.h"

namespace frugal::train {

struct MicroBatch {
  std::vector<uint64_t> examples;  // their numbers, for messages and for the objective
  int64_t tokens = 0;              // that go through the model
  int64_t targets = 0;             // that the loss is a mean over
  double flops = 0;                // of learning it, forward and backward (train/flops.h); 0: not known
};

class Objective {
 public:
  virtual ~Objective() = default;
  // A pure function of the epoch (and of the seed that the objective was made with); every example once.
  virtual std::vector<MicroBatch> epoch(int64_t epoch) = 0;
  // Adds the gradient of scale * (sum of the micro-batch's losses) to the parameters' .grad; returns that sum. `seed` is for what is random in
  // it (dropout), equal when a step is computed again.
  virtual double accumulate(const MicroBatch& batch, double scale, uint64_t seed) = 0;
  // The same of several micro-batches, one after the other unless the objective knows better (pipeline.h).
  virtual double accumulate_step(std::span<const MicroBatch* const> batches, double scale, std::span<const uint64_t> seeds);
  // That sum alone, without gradient: what zeroth-order optimizers move by. Error{unsupported} unless the objective can.
  virtual double loss(const MicroBatch& batch, uint64_t seed);
  // As accumulate, with labels drawn from the model in place of the data's: what second-order optimizers estimate curvature with. Error{unsupported}
  // unless the objective can.
  virtual void accumulate_drawn(const MicroBatch& batch, double scale, uint64_t seed);
  // Mean loss on held-out data, if there is any.
  virtual std::optional<double> evaluate() { return {}; }
  // Means over the micro-batches since the last call, by TensorBoard's names, beside the loss: {"rewards/accuracies": 0.7}. Empty: none.
  virtual Json metrics() { return Json::object(); }
  // Its state that changes with the steps, if it has any.
  virtual StepHook* step_hook() { return nullptr; }
  // What must be equal for a run to be resumed: data, order, everything that changes the numbers.
  virtual Json fingerprint() const = 0;
};

inline double Objective::accumulate_step(std::span<const MicroBatch* const> batches, double scale, std::span<const uint64_t> seeds) {
  double loss = 0;
  for (size_t i = 0; i < batches.size(); ++i) loss += accumulate(*batches[i], scale, seeds[i]);
  return loss;
}

inline double Objective::loss(const MicroBatch&, uint64_t) {
  fail(ErrorKind::unsupported, "this objective is learned by its gradient: choose a first-order optimizer");
}

inline void Objective::accumulate_drawn(const MicroBatch&, double, uint64_t) {
  fail(ErrorKind::unsupported, "this objective has no labels to draw: choose a first-order optimizer");
}

}  // namespace frugal::train
