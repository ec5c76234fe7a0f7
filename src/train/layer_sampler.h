// An optimizer of some blocks at a time: all others are frozen, have no gradient and no state. What LISA (tune/lisa.cpp) trains by, with any optimizer of
// the table.
#pragma once

#include <memory>
#include <vector>

#include "train/optimizer.h"

namespace frugal::train {

struct LayerSampling {
  int64_t layers = 2, interval = 20;  // blocks that train; steps until others do
  uint64_t seed = 0;
};

// Of the blocks by these numbers those that train in step `step` (from 0), in order: a pure function of seed and step.
std::vector<int64_t> sampled_layers(const std::vector<int64_t>& blocks, const LayerSampling& sampling, int64_t step);

class LayerSampler : public Optimizer {
 public:
  // What is of no block (embedding, head, last norm) trains always. Throws Error{unsupported} for an optimizer that cannot, Error{invalid_input} for more layers
  // than there are. Parameters that are frozen want no gradient.
  LayerSampler(std::vector<Parameter> parameters, const LayerSampling& sampling, const MethodRow<OptimizerFactory>& row, const Options& options);

  void prepare_step(int64_t step) override;
  void step(double learning_rate) override { optimizer_->step(learning_rate); }
  bool wants_hessian(int64_t step) const override { return optimizer_->wants_hessian(step); }
  void update_hessian(double batch_tokens) override { optimizer_->update_hessian(batch_tokens); }
  bool steps_in_backward() const override { return optimizer_->steps_in_backward(); }
  void step_of(size_t index, double learning_rate) override { optimizer_->step_of(place_.at(index), learning_rate); }
  void for_each_state(const std::function<void(const std::string&, at::Tensor&)>& visit) override { optimizer_->for_each_state(visit); }

 private:
  std::vector<Parameter> parameters_;
  LayerSampling sampling_;
  const MethodRow<OptimizerFactory>& row_;
  Options options_;
  std::vector<int64_t> blocks_, layers_;  // all, and those that train
  std::vector<size_t> place_;             // of a parameter, among those that train
  std::unique_ptr<Optimizer> optimizer_;  // of what trains
};

}  // namespace frugal::train
