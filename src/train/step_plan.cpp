#include "train/step_plan.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace frugal::train {

StepPlan::StepPlan(Objective& objective, int64_t accumulation, int64_t max_steps, double num_epochs) : objective_(objective), accumulation_(accumulation) {
  load(0);
  if (micro_.empty()) fail(ErrorKind::invalid_input, "there is nothing to train on");
  total_ = max_steps;
  if (total_ > 0) return;
  const auto whole = static_cast<int64_t>(num_epochs);
  const double rest = num_epochs - static_cast<double>(whole);
  total_ = first_of(whole);
  if (rest > 1e-9) total_ += static_cast<int64_t>(std::ceil(rest * static_cast<double>(first_of(whole + 1) - first_of(whole)) - 1e-9));
}

double StepPlan::epoch_after(int64_t step) {
  const int64_t epoch = epoch_of(step), begin = first_of(epoch);
  return static_cast<double>(epoch) + static_cast<double>(step - begin) / static_cast<double>(first_of(epoch + 1) - begin);
}

Step StepPlan::step(int64_t index) {
  Step step{{}, epoch_of(index)};
  load(step.epoch);
  const int64_t begin = (index - first_of(step.epoch)) * accumulation_;
  for (int64_t i = begin; i < std::min(begin + accumulation_, std::ssize(micro_)); ++i) step.batches.push_back(&micro_[static_cast<size_t>(i)]);
  return step;
}

int64_t StepPlan::first_of(int64_t epoch) {
  while (std::ssize(firsts_) <= epoch) load(std::ssize(firsts_) - 1);
  return firsts_[static_cast<size_t>(epoch)];
}

int64_t StepPlan::epoch_of(int64_t step) {
  int64_t epoch = 0;
  while (first_of(epoch + 1) <= step) ++epoch;
  return epoch;
}

void StepPlan::load(int64_t epoch) {
  if (epoch != epoch_) micro_ = objective_.epoch(epoch);
  epoch_ = epoch;
  if (std::ssize(firsts_) == epoch + 1) firsts_.push_back(firsts_.back() + std::max<int64_t>(1, (std::ssize(micro_) + accumulation_ - 1) / accumulation_));
}

}  // namespace frugal::train
