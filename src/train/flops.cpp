#include "train/flops.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "eval/speed.h"

namespace frugal::train {
namespace {

constexpr double kFrozen = 4, kTrained = 6, kAttention = 12;

TrainingFlops flops_of(const nn::Model& model, double per_weight) {
  const eval::MultiplyAdds matrices = eval::multiply_adds_per_token(model);
  TrainingFlops flops;
  flops.virtual_tokens = model.virtual_tokens.count;
  flops.per_token = per_weight * static_cast<double>(matrices.up_to_4_bits + matrices.wider);
  flops.per_target = per_weight * static_cast<double>(model.head.out_features() * model.head.in_features());
  for (const nn::Block& block : model.blocks) {
    if (block.query) flops.blocks.push_back({kAttention * static_cast<double>(block.spec.heads * block.spec.head_dim), block.spec.sliding_window});
  }
  return flops;
}

}  // namespace

double TrainingFlops::of(int64_t text, int64_t targets) const {
  const int64_t tokens = virtual_tokens + text;
  double total = per_token * static_cast<double>(tokens) + per_target * static_cast<double>(targets);
  for (const Attention& block : blocks) {
    const int64_t seen = block.window > 0 ? std::min(block.window, tokens) : tokens;
    total += block.per_pair * static_cast<double>(tokens) * static_cast<double>(seen);
  }
  return total;
}

TrainingFlops training_flops(const nn::Model& model) { return flops_of(model, kTrained); }

TrainingFlops training_flops(const nn::Model& model, const std::vector<Parameter>& adapter) {
  TrainingFlops flops = flops_of(model, kFrozen);
  if (flops.virtual_tokens > 0) return flops;  // no matrices
  for (const Parameter& parameter : adapter) {
    if (parameter.tensor.dim() >= 2) flops.per_token += kTrained * static_cast<double>(parameter.tensor.numel());
  }
  return flops;
}

}  // namespace frugal::train
