#include "chain/calibration.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

namespace frugal::chain {
namespace {

// hessian += x^T x, blocks of the lower triangle only; the rest is mirrored at the end. The product costs as much as the
// block's own forward, so the saved 3/8 count.
constexpr int64_t kTriangleBlocks = 4;

int64_t block_begin(int64_t features, int64_t block) { return features * block / kTriangleBlocks; }

void add_lower_triangle(Tensor& hessian, const Tensor& x) {
  const int64_t features = x.size(1);
  for (int64_t i = 0; i < kTriangleBlocks; ++i) {
    const int64_t begin = block_begin(features, i), end = block_begin(features, i + 1);
    hessian.slice(0, begin, end).slice(1, 0, end).addmm_(x.slice(1, begin, end).t(), x.slice(1, 0, end));
  }
}

void mirror(Tensor& hessian) {
  const Tensor lower = hessian.tril();
  hessian = lower + lower.tril(-1).t();
}

}  // namespace

void StatisticsCollector::operator()(nn::InputPoint point, const Tensor& input) {
  const at::NoGradGuard no_grad;
  InputStatistics& s = statistics_[point];
  const int64_t features = input.size(1);
  if (needs_ & kNeedsHessian) {
    if (!s.hessian.defined()) s.hessian = at::zeros({features, features});
    add_lower_triangle(s.hessian, input);
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
    if (s.hessian.defined()) {
      mirror(s.hessian);
      s.hessian.div_(count);
    }
    if (s.norm.defined()) {
      s.norm.sqrt_();
      s.abs_mean.div_(count);
    }
  }
  return std::move(statistics_);
}

}  // namespace frugal::chain
