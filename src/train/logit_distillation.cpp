#include "train/logit_distillation.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <limits>

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
                                     double weight, double token_temperature)
    : LanguageModeling(student, dataset, nullptr, std::move(options)), teacher_(teacher), weight_(weight), token_temperature_(token_temperature) {
  FRUGAL_ASSERT(student.spec.vocab == teacher.spec.vocab);
}

Tensor LogitDistillation::token_scales(const TokenBatch& tokens, const Tensor& theirs) const {
  Tensor losses = token_losses(teacher_, theirs, tokens.targets).div_(token_temperature_);
  losses.masked_fill_(tokens.targets == kIgnored, -std::numeric_limits<float>::infinity());
  Tensor scales = at::zeros_like(losses);
  for (const nn::SequenceSlice& slice : tokens.batch.sequences) {
    const double learned = (tokens.targets.narrow(0, slice.begin, slice.count) != kIgnored).sum().item<double>();
    if (learned > 0) scales.narrow(0, slice.begin, slice.count).copy_(at::softmax(losses.narrow(0, slice.begin, slice.count), 0).mul_(learned));
  }
  return scales;
}

double LogitDistillation::accumulate(const MicroBatch& batch, double scale, uint64_t seed) {
  if (options_.seed_randomness) options_.seed_randomness(seed);
  const TokenBatch tokens = token_batch(dataset_, batch.examples);
  if (tokens.batch.tokens.empty()) return 0;
  const Tensor hidden = hidden_states(model_, tokens.batch, options_.recompute);
  Tensor theirs, scales;
  {
    const at::NoGradGuard no_grad;
    theirs = hidden_states(teacher_, tokens.batch);
    if (token_temperature_ > 0) scales = token_scales(tokens, theirs);
  }
  double loss = 0;
  backward_by_rows(model_, hidden, (tokens.targets != kIgnored).nonzero().squeeze(1), [&](const Tensor& logits, const Tensor& part) {
    RowLoss soft = divergence(logits, teacher_.logits(theirs.index_select(0, part)), Divergence::forward_kl, 1, 0.5);
    if (scales.defined()) {
      const Tensor scale = scales.index_select(0, part);
      soft.values.mul_(scale);
      soft.gradient.mul_(scale.unsqueeze(1));
    }
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
