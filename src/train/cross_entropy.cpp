#include "train/cross_entropy.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "base/error.h"
#include "nn/lora_kind.h"
#include "ops/autocast.h"
#include "ops/gemm.h"
#include "train/tensor_parallel.h"

namespace frugal::train {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;

constexpr int64_t kLogitBytes = int64_t{32} << 20;

// Their losses [count]. The rows [count, vocab] become the gradient of each loss by its logits.
Tensor losses_in_place(Tensor& logits, const Tensor& targets, double softcap) {
  Tensor slope;
  if (softcap > 0) {
    logits.div_(softcap).tanh_();
    slope = 1 - logits.square();
    logits.mul_(softcap);
  }
  const Tensor column = targets.unsqueeze(1);
  const Tensor wanted = logits.gather(1, column);
  const Tensor highest = logits.amax(1, /*keepdim=*/true);
  logits.sub_(highest).exp_();
  const Tensor total = logits.sum(1, /*keepdim=*/true);
  const Tensor losses = (total.log() + highest - wanted).squeeze(1);
  logits.div_(total);
  logits.scatter_add_(1, column, at::full_like(wanted, -1));
  if (softcap > 0) logits.mul_(slope);
  return losses;
}

// The same where `head` has some of the tokens: logits [count, its rows]. Each rank's highest logit, its sum of exponentials beside that, and the wanted
// logit where it has it, are all that the others see.
Tensor losses_in_place(Tensor& logits, const Tensor& targets, double softcap, const VocabularyParallelKind& head) {
  Tensor slope;
  if (softcap > 0) {
    logits.div_(softcap).tanh_();
    slope = 1 - logits.square();
    logits.mul_(softcap);
  }
  dist::ProcessGroup& group = head.group();
  const Tensor local = targets - head.first();
  const Tensor here = (local >= 0).logical_and_(local < logits.size(1)).unsqueeze(1);
  const Tensor column = local.unsqueeze(1).masked_fill(here.logical_not(), 0);
  const Tensor all = at::zeros({group.size(), 3, logits.size(0)});
  Tensor mine = all[group.rank()];
  mine[2].copy_(logits.gather(1, column).mul_(here).squeeze(1));
  const Tensor highest_here = logits.amax(1, /*keepdim=*/true);
  mine[0].copy_(highest_here.squeeze(1));
  logits.sub_(highest_here).exp_();
  mine[1].copy_(logits.sum(1));
  group.all_reduce(all)->wait();  // a row of numbers for each rank, zero at the others
  const Tensor highest = all.select(1, 0).amax(0);
  const Tensor total = (all.select(1, 1) * (all.select(1, 0) - highest).exp()).sum(0);
  logits.mul_(((mine[0] - highest).exp() / total).unsqueeze(1));
  logits.scatter_add_(1, column, -here.to(at::kFloat));
  if (softcap > 0) logits.mul_(slope);
  return total.log() + highest - all.select(1, 2).sum(0);
}

// weights undefined: 1.
double weighted_sum(const Tensor& losses, const Tensor& weights) {
  const Tensor exact = losses.to(at::kDouble);
  return (weights.defined() ? exact * weights : exact).sum().item<double>();
}

// parallel: the head where it is cut by tokens, else null.
class FusedHead : public torch::autograd::Function<FusedHead> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& hidden, const Tensor& weight, const Tensor& targets, const std::optional<Tensor>& row_weights,
                        double softcap, double scale, bool training, const VocabularyParallelKind* parallel) {
    const int64_t vocab_here = parallel ? (parallel->vocab() + parallel->group().size() - 1) / parallel->group().size() : weight.size(0);
    const int64_t rows = hidden.size(0), step = rows_of_logits(vocab_here);  // the same on all ranks
    const at::ScalarType type = ops::activation_type(hidden);
    const bool wants_hidden = training && hidden.requires_grad(), wants_weight = training && weight.requires_grad();
    Tensor gradient = wants_hidden ? at::empty_like(hidden) : Tensor();
    if (wants_weight && !weight.grad().defined()) weight.mutable_grad() = at::zeros_like(weight);
    double loss = 0;
    for (int64_t begin = 0; begin < rows; begin += step) {
      const int64_t count = std::min(step, rows - begin);
      const Tensor part = hidden.narrow(0, begin, count);
      const Tensor factors = row_weights ? row_weights->narrow(0, begin, count) : Tensor();
      Tensor logits = ops::gemm(part, weight.t(), type);
      const Tensor learned = targets.narrow(0, begin, count);
      loss += weighted_sum(parallel ? losses_in_place(logits, learned, softcap, *parallel) : losses_in_place(logits, learned, softcap), factors);
      if (factors.defined() && (wants_hidden || wants_weight)) logits.mul_(factors.unsqueeze(1));
      if (wants_hidden) {
        Tensor into = gradient.narrow(0, begin, count);
        Tensor exact = into.scalar_type() == at::kFloat ? into : at::empty(into.sizes(), at::kFloat);
        ops::gemm_into(exact, logits, weight, scale, /*accumulate=*/false, type);
        if (!exact.is_same(into)) into.copy_(exact);
      }
      if (wants_weight) ops::gemm_into(weight.mutable_grad(), logits.t(), part, scale, /*accumulate=*/true, type);
    }
    if (wants_hidden) context->save_for_backward({parallel ? summed(parallel->group(), gradient) : gradient});
    return at::scalar_tensor(loss * scale, at::kDouble);
  }

  static torch::autograd::variable_list backward(AutogradContext* context, torch::autograd::variable_list gradients) {
    FRUGAL_ASSERT(gradients[0].item<double>() == 1);
    const auto saved = context->get_saved_variables();
    return {saved.empty() ? Tensor() : saved[0], Tensor(), Tensor(), Tensor(), Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

// Rows that have a target, in order; checked.
Tensor learned_rows(const nn::Model& model, const Tensor& hidden, const Tensor& targets) {
  FRUGAL_ASSERT(hidden.dim() == 2 && targets.dim() == 1 && hidden.size(0) == targets.size(0));
  Tensor rows = (targets != kIgnored).nonzero().squeeze(1);
  if (rows.numel() == 0) return rows;
  const Tensor learned = targets.index_select(0, rows);
  if (learned.min().item<int64_t>() < 0 || learned.max().item<int64_t>() >= model.spec.vocab) {
    fail(ErrorKind::invalid_input, "a target is outside the vocabulary of {}", model.spec.vocab);
  }
  return rows;
}

}  // namespace

int64_t rows_of_logits(int64_t vocab) { return std::max<int64_t>(64, kLogitBytes / (vocab * 4)); }

Tensor cross_entropy(const nn::Model& model, const Tensor& hidden, const Tensor& targets, double scale, const Tensor& weights) {
  const Tensor rows = learned_rows(model, hidden, targets);
  if (rows.numel() == 0) return hidden.sum().to(at::kDouble) * 0;
  const bool all = rows.numel() == targets.numel();
  const auto chosen = [&](const Tensor& x) { return all || !x.defined() ? x : x.index_select(0, rows); };
  const Tensor learned = chosen(targets), inputs = chosen(hidden).contiguous(), factors = chosen(weights);
  const bool simple = model.head.kinds().size() == 1 && !model.head.bias().defined() && !dynamic_cast<const nn::AdapterKind*>(model.head.kinds().front().get());
  if (simple) {
    const Tensor weight = model.head.dense();
    if (!weight.requires_grad() || weight.is_leaf())
      return FusedHead::apply(inputs, weight, learned, factors.defined() ? std::optional(factors) : std::nullopt, model.spec.logit_softcap, scale,
                              at::GradMode::is_enabled(), dynamic_cast<const VocabularyParallelKind*>(model.head.kinds().front().get()));
  }
  Tensor loss = at::zeros({}, at::kDouble);
  const int64_t step = rows_of_logits(model.spec.vocab);
  for (int64_t begin = 0; begin < inputs.size(0); begin += step) {
    const int64_t count = std::min(step, inputs.size(0) - begin);
    const Tensor logits = model.logits(inputs.narrow(0, begin, count));
    const Tensor losses = at::cross_entropy_loss(logits, learned.narrow(0, begin, count), {}, at::Reduction::None).to(at::kDouble);
    loss = loss + (factors.defined() ? losses * factors.narrow(0, begin, count) : losses).sum();
  }
  return loss * scale;
}

Tensor token_losses(const nn::Model& model, const Tensor& hidden, const Tensor& targets) {
  const at::NoGradGuard no_grad;
  const Tensor rows = learned_rows(model, hidden, targets);
  Tensor losses = at::zeros({targets.size(0)}, at::kFloat);
  const int64_t step = rows_of_logits(model.spec.vocab);
  for (int64_t begin = 0; begin < rows.numel(); begin += step) {
    const Tensor part = rows.narrow(0, begin, std::min(step, rows.numel() - begin));
    const Tensor logits = model.logits(hidden.detach().index_select(0, part));
    losses.index_copy_(0, part, at::cross_entropy_loss(logits, targets.index_select(0, part), {}, at::Reduction::None));
  }
  return losses;
}

Tensor drawn_targets(const nn::Model& model, const Tensor& hidden, const Tensor& targets, uint64_t seed) {
  const at::NoGradGuard no_grad;
  const Tensor rows = learned_rows(model, hidden, targets);
  Tensor drawn = targets.clone();
  const at::Generator generator = at::detail::createCPUGenerator(seed);
  const int64_t step = rows_of_logits(model.spec.vocab);
  for (int64_t begin = 0; begin < rows.numel(); begin += step) {
    const Tensor part = rows.narrow(0, begin, std::min(step, rows.numel() - begin));
    const Tensor chances = at::softmax(model.logits(hidden.detach().index_select(0, part)), -1);
    drawn.index_copy_(0, part, at::multinomial(chances, 1, /*replacement=*/true, generator).squeeze(1));
  }
  return drawn;
}

}  // namespace frugal::train
