#include "train/divergence.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

#include "base/error.h"

namespace frugal::train {

using at::Tensor;

double RowLoss::sum() const { return values.to(at::kDouble).sum().item<double>(); }

namespace {

// log(share a + (1 - share) b)
Tensor mix(const Tensor& log_a, const Tensor& log_b, double share) {
  FRUGAL_ASSERT(share > 0 && share < 1);
  return at::logaddexp(log_a + std::log(share), log_b + std::log1p(-share));
}

}  // namespace

// A function of q has by the logits the slope q (f - sum q f) / temperature, f its slope by q; what f has of a constant falls out.
RowLoss divergence(const Tensor& student, const Tensor& teacher, Divergence kind, double temperature, double beta) {
  FRUGAL_ASSERT(student.dim() == 2 && student.sizes() == teacher.sizes() && temperature > 0);
  const at::NoGradGuard no_grad;
  const Tensor log_q = at::log_softmax(student / temperature, 1), log_p = at::log_softmax(teacher / temperature, 1);
  const Tensor q = log_q.exp();
  RowLoss result;
  if (kind == Divergence::forward_kl) {
    const Tensor p = log_p.exp();
    result.values = (p * (log_p - log_q)).sum(1);
    result.gradient = (q - p).div_(temperature);
    return result;
  }
  Tensor slope;  // by q
  if (kind == Divergence::reverse_kl) {
    slope = log_q - log_p;
    result.values = (q * slope).sum(1);
  } else if (kind == Divergence::skew_kl) {
    const Tensor p = log_p.exp(), log_m = mix(log_p, log_q, beta);
    result.values = (p * (log_p - log_m)).sum(1);
    slope = (log_p - log_m).exp_().mul_(beta - 1);
  } else if (kind == Divergence::skew_reverse_kl) {
    const Tensor log_m = mix(log_q, log_p, beta), apart = log_q - log_m;
    result.values = (q * apart).sum(1);
    slope = apart.sub(apart.exp(), beta);
  } else {
    const Tensor log_m = mix(log_p, log_q, beta);
    slope = (log_q - log_m).mul_(1 - beta);
    result.values = (log_p.exp() * (log_p - log_m)).sum(1).mul_(beta) + (q * slope).sum(1);
  }
  result.gradient = slope.sub_((q * slope).sum(1, /*keepdim=*/true)).mul_(q).div_(temperature);
  return result;
}

RowLoss label_loss(const Tensor& logits, const Tensor& targets) {
  const at::NoGradGuard no_grad;
  const Tensor log_q = at::log_softmax(logits, 1), column = targets.unsqueeze(1);
  RowLoss result{-log_q.gather(1, column).squeeze(1), log_q.exp()};
  result.gradient.scatter_add_(1, column, at::full_like(column, -1.0, logits.options()));
  return result;
}

}  // namespace frugal::train
