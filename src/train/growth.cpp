#include "train/growth.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "base/error.h"
#include "base/rng.h"
#include "train/growth_rows.h"

namespace frugal::train {

const MethodTable<GrowFunction>& growth_table() {
  static const MethodTable<GrowFunction> table({stacking_row(), staged_row(), lemon_row()});
  return table;
}

double logits_difference(const nn::Model& before, const nn::Model& after, uint64_t seed) {
  constexpr int64_t kSequences = 4, kLength = 64;
  FRUGAL_ASSERT(before.spec.vocab == after.spec.vocab);
  const at::NoGradGuard no_grad;
  Rng rng(seed);
  const int64_t length = std::min(kLength, before.spec.context_length);
  std::vector<int32_t> tokens(static_cast<size_t>(kSequences * length));
  for (int32_t& token : tokens) token = static_cast<int32_t>(rng.below(static_cast<uint64_t>(before.spec.vocab)));
  const nn::Batch batch = nn::Batch::equal_parts(tokens, length);
  const at::Tensor old_logits = before.forward(batch).logits, new_logits = after.forward(batch).logits;
  return ((new_logits - old_logits).abs().max() / old_logits.abs().max().clamp_min(1e-30)).item<double>();
}

}  // namespace frugal::train
