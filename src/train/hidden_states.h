// The forward pass of training: a model's hidden rows, with or without keeping what its blocks computed on the way.
#pragma once

#include <functional>

#include "nn/model.h"

namespace frugal::train {

// Recomputation (arXiv 1604.06174, "activation-checkpoint"): of every `every`-th block only the input is kept, and backward computes the block
// again. Gradients are equal to the bit, with randomness (dropout) too where its state can be read and set back.
struct Recompute {
  int64_t every = 0;  // 0: none; 1: all blocks; 2: every second one (selective)
  std::function<at::Tensor()> random_state;
  std::function<void(const at::Tensor&)> set_random_state;
  // Called before a block is computed and after it, each time, where a block's weights are here for as long only (ZeRO-3); needs every = 1.
  std::function<void(int64_t block, bool begins)> weights = {};
  nn::InputTap inputs = {};  // of the blocks' Linears, each time (tensor_parallel.h)
};

// [tokens, hidden] after the final norm; the batch has no states (whole sequences). model and what `recompute` refers to live until backward.
// Between blocks is a stop point (base/progress.h).
at::Tensor hidden_states(const nn::Model& model, const nn::Batch& batch, const Recompute& recompute = {});

// The batch's hidden rows behind the blocks before `begin`, [tokens, hidden], through those before `end`.
at::Tensor through_blocks(const nn::Model& model, at::Tensor hidden, const nn::Batch& batch, const Recompute& recompute, int64_t begin, int64_t end);

}  // namespace frugal::train
