#include "train/clip.h"

#include <cmath>

#include "base/error.h"
#include "train/per_parameter.h"
#include "train/sums.h"

namespace frugal::train {

double gradient_norm(const std::vector<Parameter>& parameters) {
  std::vector<at::Tensor> gradients;
  for (const Parameter& parameter : parameters) {
    if (at::Tensor gradient = gradient_of(parameter); gradient.defined()) gradients.push_back(std::move(gradient));
  }
  return std::sqrt(sum_of_squares(gradients));
}

double clip_gradients(const std::vector<Parameter>& parameters, double max_norm) {
  const double norm = gradient_norm(parameters);
  clip_gradients(parameters, norm, max_norm);
  return norm;
}

void clip_gradients(const std::vector<Parameter>& parameters, double norm, double max_norm) {
  if (!(max_norm > 0)) fail(ErrorKind::invalid_input, "the largest norm of gradients must be above 0, is {}", max_norm);
  const double scale = max_norm / (norm + 1e-6);
  if (!std::isfinite(norm) || scale >= 1) return;
  const c10::NoGradGuard guard;
  for (const Parameter& parameter : parameters) {
    if (parameter.tensor.grad().defined()) parameter.tensor.mutable_grad().mul_(scale);
  }
}

}  // namespace frugal::train
