// The loss of language modelling at the head, without ever holding more than some rows of logits.
#pragma once

#include <ATen/core/Tensor.h>

#include "nn/model.h"

namespace frugal::train {

inline constexpr int64_t kIgnored = -100;  // a target that is not learned, as torch.nn.CrossEntropyLoss marks it

// So many rows of logits take about 32 MB: what is held at once.
int64_t rows_of_logits(int64_t vocab);

// scale * sum over the rows with a target of weight * -log softmax(head(hidden))[target]; float64, a scalar. hidden [tokens, hidden_size] after the
// final norm; targets [tokens] int64, kIgnored or in 0..vocab-1 (else Error{invalid_input}); weights [tokens] float32, or undefined: 1. Logits exist
// for so many rows at once that they take about 32 MB, and their gradient takes their place; rows without a target cost nothing (the idea of Liger
// Kernel, arXiv 2410.10989, 3.2).
// With a gradient wanted, the gradients are computed in the forward pass, and the head's weight, where it is a leaf, gets its own at once, in
// its .grad: backward must then follow with the gradient 1 (scale is for that). A head of several kinds (adapters) or with a bias takes autograd's
// way for each part of the rows. No gradient flows into weights.
at::Tensor cross_entropy(const nn::Model& model, const at::Tensor& hidden, const at::Tensor& targets, double scale, const at::Tensor& weights = {});

// -log softmax(head(hidden))[target] of each row, [tokens] float32, 0 where there is no target; without gradient.
at::Tensor token_losses(const nn::Model& model, const at::Tensor& hidden, const at::Tensor& targets);

// Where there is a target, one that the model draws instead, by `seed`; without gradient.
at::Tensor drawn_targets(const nn::Model& model, const at::Tensor& hidden, const at::Tensor& targets, uint64_t seed);

}  // namespace frugal::train
