#include "train/divergence.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

#include "base/error.h"

namespace frugal::train {

using at::Tensor;

double RowLoss::sum() const { return values.to(at::kDouble).sum().item<double>(); }

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
  } else {
    FRUGAL_ASSERT(beta > 0 && beta < 1);
    const Tensor log_m = at::logaddexp(log_p + std::log(beta), log_q + std::log1p(-beta));
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
