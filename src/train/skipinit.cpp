// SkipInit (De and Smith, Batch Normalization Biases Residual Blocks Towards the Identity Function, arXiv 2002.10444, section 4): no norms, and a learned
// number at the end of every residual branch that begins at 0 or at a small constant, 1 / sqrt(d) of d branches, for which the variance of the stream
// at most doubles over the depth.
//
// Differs from the paper, whose networks are convolutions: matrices are Xavier's, not He's for ReLU, without its dropout; the embedding is that of
// initialization.h. With alpha=zero a transformer begins as rezero has it.
#include <cmath>

#include "train/initialization.h"

namespace frugal::train {
namespace {

Begin begin(const nn::ModelSpec& spec, const Parameter& tensor, double usual, const Options& options) {
  if (tensor.tensor.dim() < 2 && options.text("alpha") == "inverse-sqrt") return {1 / std::sqrt(2.0 * static_cast<double>(spec.blocks.size()))};
  return rezero_row().function.begin(spec, tensor, usual, {});
}

}  // namespace

InitializationRow skipinit_row() {
  InitializationRow row;
  row.id = "skipinit";
  row.title = "SkipInit";
  row.leaf = "train";
  row.arxiv = "2002.10444";
  row.summary = "no norms: what a branch adds is times a learned number that begins at 1 / sqrt(branches), or at 0";
  row.options = {choice_option("alpha", "inverse-sqrt", {"inverse-sqrt", "zero"}, "where the numbers begin")};
  row.function = {.change = rezero_row().function.change, .begin = begin};
  row.claims = {claim_of_new_model(
      "a deep stack trains without norms where plain residual sums do not: 16 blocks of width 64, a lower loss than fixup:scale=1 after the same steps",
      {"fixup:scale=1"}, {"skipinit"},
      {.steps = 100, .batch_size = 4, .sequence_len = 64, .new_blocks = 16, .new_width = 64, .baseline_rates = {1e-3, 4e-3}, .method_rates = {1e-3, 4e-3}})};
  return row;
}

}  // namespace frugal::train
