// Where each step's micro-batches are: the epochs one after the other, the last step of each perhaps with fewer. Packing may give an epoch
// a few more or fewer than another.
#pragma once

#include <cstdint>
#include <vector>

#include "train/objective.h"

namespace frugal::train {

struct Step {
  std::vector<const MicroBatch*> batches;
  int64_t epoch = 0;
};

class StepPlan {
 public:
  // accumulation: micro-batches of a step. max_steps 0: num_epochs decides. Throws Error{invalid_input} where there is nothing to train on.
  StepPlan(Objective& objective, int64_t accumulation, int64_t max_steps, double num_epochs);
  int64_t total() const { return total_; }
  double epoch_after(int64_t step);
  Step step(int64_t index);  // valid until the next call

 private:
  int64_t first_of(int64_t epoch);  // the step that it begins with
  int64_t epoch_of(int64_t step);
  void load(int64_t epoch);

  Objective& objective_;
  int64_t accumulation_, total_ = 0, epoch_ = -1;
  std::vector<MicroBatch> micro_;
  std::vector<int64_t> firsts_ = {0};
};

}  // namespace frugal::train
