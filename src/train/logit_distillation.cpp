#include "train/logit_distillation.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>

#include "base/error.h"
#include "train/cross_entropy.h"
#include "train/divergence.h"

namespace frugal::train {

using at::Tensor;

void backward_by_rows(const nn::Model& model, const Tensor& hidden, const Tensor& rows,
                      const std::function<Tensor(const Tensor& logits, const Tensor& part)>& slope) {
  Tensor hidden_gradient = at::zeros_like(hidden);
  const int64_t step = rows_of_logits(model.spec.vocab);
  for (int64_t begin = 0; begin < rows.numel(); begin += step) {
    const Tensor part = rows.narrow(0, begin, std::min(step, rows.numel() - begin));
    const Tensor inputs = hidden.detach().index_select(0, part).requires_grad_(true);
    const Tensor logits = model.logits(inputs);
    Tensor gradient;
    {
      const at::NoGradGuard no_grad;
      gradient = slope(logits.detach(), part);
    }
    torch::autograd::backward({logits}, {gradient});
    hidden_gradient.index_copy_(0, part, inputs.grad());
  }
  if (hidden.requires_grad()) torch::autograd::backward({hidden}, {hidden_gradient});
}

LogitDistillation::LogitDistillation(const nn::Model& student, const nn::Model& teacher, const data::Dataset& dataset, LanguageModelingOptions options,
                                     double weight)
    : LanguageModeling(student, dataset, nullptr, std::move(options)), teacher_(teacher), weight_(weight) {
  FRUGAL_ASSERT(student.spec.vocab == teacher.spec.vocab);
}

double LogitDistillation::accumulate(const MicroBatch& batch, double scale, uint64_t seed) {
  if (options_.seed_randomness) options_.seed_randomness(seed);
  const TokenBatch tokens = token_batch(dataset_, batch.examples);
  if (tokens.batch.tokens.empty()) return 0;
  const Tensor hidden = hidden_states(model_, tokens.batch, options_.recompute);
  Tensor theirs;
  {
    const at::NoGradGuard no_grad;
    theirs = hidden_states(teacher_, tokens.batch);
  }
  double loss = 0;
  backward_by_rows(model_, hidden, (tokens.targets != kIgnored).nonzero().squeeze(1), [&](const Tensor& logits, const Tensor& part) {
    RowLoss soft = divergence(logits, teacher_.logits(theirs.index_select(0, part)), Divergence::forward_kl, 1, 0.5);
    loss += weight_ * soft.sum();
    Tensor gradient = soft.gradient.mul_(weight_);
    if (weight_ < 1) {
      const RowLoss labels = label_loss(logits, tokens.targets.index_select(0, part));
      loss += (1 - weight_) * labels.sum();
      gradient.add_(labels.gradient, 1 - weight_);
    }
    return gradient.mul_(scale);
  });
  return loss;
}

void LogitDistillation::accumulate_drawn(const MicroBatch& batch, double scale, uint64_t seed) { Objective::accumulate_drawn(batch, scale, seed); }

}  // namespace frugal::train
