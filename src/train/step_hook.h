// What a method does at each step of a run beside the optimizer (AdaLoRA allots ranks, DistiLLM keeps what the student wrote). Nothing by default.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>

#include "base/json.h"

namespace frugal::train {

class StepHook {
 public:
  virtual ~StepHook() = default;
  // Once, before the first step of this process (and before a checkpoint is read). Throws Error{invalid_input}.
  virtual void begin(int64_t total_steps) {}
  // When the gradients are there, before they are clipped: may add to them. What the log says of it, by TensorBoard's names.
  virtual Json add_gradients() { return Json::object(); }
  // After the optimizer's step (from 0), while its gradients are still there; not of a step that was skipped.
  virtual void after_step(int64_t step) {}
  // The held-out loss, each time it was taken.
  virtual void evaluated(double loss) {}
  // All that a resumed run needs of it; there from construction on.
  virtual void for_each_state(const std::function<void(const std::string& name, at::Tensor& state)>& visit) {}
};

}  // namespace frugal::train
