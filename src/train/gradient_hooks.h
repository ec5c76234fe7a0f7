// Tells of each gradient as soon as backward has added it to a parameter's .grad.
#pragma once

#include <functional>
#include <vector>

#include "train/parameter.h"

namespace frugal::train {

class GradientHooks {
 public:
  // `is_there` gets the parameter's index, and may take the gradient away. One at a time for a parameter.
  GradientHooks(const std::vector<Parameter>& parameters, std::function<void(size_t parameter)> is_there);
  ~GradientHooks();
  GradientHooks(const GradientHooks&) = delete;
  GradientHooks& operator=(const GradientHooks&) = delete;

 private:
  const std::vector<Parameter>& parameters_;
  std::function<void(size_t)> is_there_;
};

}  // namespace frugal::train
