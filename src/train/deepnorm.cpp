// DeepNet: Scaling Transformers to 1,000 Layers (arXiv 2203.00555), section 3 and figure 2, for a decoder of M blocks:
//   x <- norm(alpha x + f(x)), alpha = (2 M)^(1/4), and the projections of values, of attention's output and of the feed-forward part are drawn smaller by
//   beta = (8 M)^(-1/4) than Xavier's normal distribution has it; queries and keys are not.
// The norms are where the first transformers have them, and none follows the last block.
//
// Differs from the paper: RMSNorm and a gated feed-forward part. Of its three matrices `up` and `down` are smaller: the product of the linear path has beta
// twice, as in the paper; the gate would be a third time. alpha=1,beta=1 is the plain post-norm transformer. The embedding is that of initialization.h.
#include <cmath>

#include "train/initialization.h"

namespace frugal::train {
namespace {

double blocks_of(const nn::ModelSpec& spec) { return static_cast<double>(spec.blocks.size()); }

void change(nn::ModelSpec& spec, double initializer_range, const Options& options) {
  const double given = options.number("alpha"), alpha = given > 0 ? given : std::pow(2 * blocks_of(spec), 0.25);
  scale_embedding(spec, initializer_range);
  spec.final_norm = nn::NormKind::none;
  for (nn::BlockSpec& block : spec.blocks) {
    block.norm_after_add = true;
    block.residual_scale = alpha;
  }
}

Begin begin(const nn::ModelSpec& spec, const Parameter& tensor, double usual, const Options& options) {
  if (tensor.tensor.dim() < 2 || is_embedding_or_head(tensor)) return {usual};
  const double given = options.number("beta"), beta = given > 0 ? given : std::pow(8 * blocks_of(spec), -0.25);
  return {(is_linear_in_branch(tensor) ? beta : 1) * xavier_deviation(tensor)};
}

}  // namespace

InitializationRow deepnorm_row() {
  InitializationRow row;
  row.id = "deepnorm";
  row.title = "DeepNorm";
  row.leaf = "train";
  row.arxiv = "2203.00555";
  row.summary = "norms after a residual sum that weighs the stream more the deeper the model is, with smaller weights in the branches";
  row.options = {number_option("alpha", 0, 0, 1e3, "weight of the stream in the sum (0: by depth)"),
                 number_option("beta", 0, 0, 1e3, "size of the branches' matrices (0: by depth)")};
  row.function = {.change = change, .begin = begin};
  row.claims = {claim_of_new_model(
      "a deep stack trains where post-norm does not: 32 blocks of width 64, a lower loss after the same steps", {"deepnorm:alpha=1,beta=1"}, {"deepnorm"},
      {.steps = 100, .batch_size = 4, .sequence_len = 64, .new_blocks = 32, .new_width = 64, .baseline_rates = {5e-4, 2e-3}, .method_rates = {5e-4, 2e-3}})};
  return row;
}

}  // namespace frugal::train
