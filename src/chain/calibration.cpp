#include "chain/calibration.h"

#include <ATen/ATen.h>

namespace frugal::chain {

void StatisticsCollector::operator()(nn::InputPoint point, const Tensor& input) {
  const at::NoGradGuard no_grad;
  InputStatistics& s = statistics_[point];
  const int64_t features = input.size(1);
  if (needs_ & kNeedsHessian) {
    if (!s.hessian.defined()) s.hessian = at::zeros({features, features});
    s.hessian.addmm_(input.t(), input);
  }
  if (needs_ & kNeedsMagnitude) {
    if (!s.norm.defined()) {
      s.norm = at::zeros({features});
      s.abs_mean = at::zeros({features});
      s.abs_max = at::zeros({features});
    }
    const Tensor magnitude = input.abs();
    s.norm.add_(input.square().sum(0));
    s.abs_mean.add_(magnitude.sum(0));
    s.abs_max = at::maximum(s.abs_max, magnitude.amax(0));
  }
  if (needs_ & kNeedsSample) {
    const int64_t have = s.sample.defined() ? s.sample.size(0) : 0;
    const int64_t take = std::min(sample_rows_ - have, input.size(0));
    if (take > 0) {
      const Tensor rows = input.narrow(0, 0, take).clone();
      s.sample = have == 0 ? rows : at::cat({s.sample, rows}, 0);
    }
  }
  s.tokens += input.size(0);
}

std::map<nn::InputPoint, InputStatistics> StatisticsCollector::finish() {
  for (auto& [point, s] : statistics_) {
    const auto count = static_cast<double>(std::max<int64_t>(1, s.tokens));
    if (s.hessian.defined()) s.hessian.div_(count);
    if (s.norm.defined()) {
      s.norm.sqrt_();
      s.abs_mean.div_(count);
    }
  }
  return std::move(statistics_);
}

}  // namespace frugal::chain
