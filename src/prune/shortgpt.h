#pragma once

#include <vector>

#include "base/rng.h"
#include "chain/step.h"

namespace frugal::prune {

using at::Tensor;

// 1 - mean over tokens of the cosine between what enters a block and what leaves it, both [tokens, hidden].
double block_influence(const Tensor& input, const Tensor& output);

enum class DropOrder { influence, last, random };

// Which `count` of the blocks go, ascending. `influence` (one per block) is read by DropOrder::influence only: the lowest.
std::vector<int> choose_blocks(const std::vector<double>& influence, int64_t count, DropOrder order, Rng& rng);

chain::StepRow shortgpt_row();

}  // namespace frugal::prune
