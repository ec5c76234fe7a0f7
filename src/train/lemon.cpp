// LEMON (arXiv 2310.07999; the authors' program YiteWang/lemon-pytorch, lm/vlm/inflate_bert_utils.py): lossless expansion of width and
// depth to sizes that need not be multiples. A channel has as many copies as fit, some one more than others; who reads them splits its old weight
// over them unequally (drawn numbers less their mean, plus the equal part: "projection"), which tells copies apart.
//
// Differs from the paper:
// - The residual stream. The paper's LayerNorm needs the mean kept, so the rest of a width is filled with the mean of the channels. RMSNorm has no mean:
//   the rest is 0, which makes the mean of squares k d / D of the old one (k whole copies of d channels in D), so weights are multiplied by
//   sqrt(k d / D) and rms_norm_eps by k d / D. What reads such a channel is drawn, as in the paper.
// - The head's columns are copied, as they must be where it is the embedding; the unequal parts are the final norm's.
// - New blocks have output projections of 0, not products that cancel. SwiGLU, RoPE, grouped heads: as in staged.
// Cost: that of the new model in float32 once, a number drawn for each weight.
#include "train/growth_plan.h"
#include "train/growth_rows.h"

namespace frugal::train {
namespace {

Grown run(const nn::Model& model, const TensorMap*, const Options& options, uint64_t seed) {
  require_growable(model);
  GrowthPlan plan = function_preserving_plan(model, wanted_sizes(model, options));
  plan.noise = options.number("noise");
  return grow(model, plan, nullptr, seed);
}

}  // namespace

GrowthRow lemon_row() {
  GrowthRow row;
  row.id = "lemon";
  row.title = "LEMON";
  row.leaf = "train";
  row.arxiv = "2310.07999";
  row.summary = "copies that are read unequally: the same function at any larger width";
  row.options = size_options();
  row.options.push_back(noise_option(0.5, "how unequally copies are read, in parts of a matrix's size (0: equally, and they stay equal)"));
  row.function = run;
  row.claims = {{.statement = "the function is the same to rounding, also at widths that are no multiples",
                 .model = "T",
                 .baseline = {},
                 .method = {"lemon:hidden_size=256,num_attention_heads=8,num_key_value_heads=4,intermediate_size=700"},
                 .metric = "logits_difference",
                 .bound = 1e-5}};
  return row;
}

}  // namespace frugal::train
