// Staged training (arXiv 2203.06211; the authors' program allenai/staged-training, scripts/gpt_pretrain.py): the training state grows, weights
// and optimizer, so that loss and training dynamics go on. Width: every axis by a whole factor, each channel copied, W' = diag(W, W): copies read
// copies; embedding and head are copied and the final norm divided by the factor. Depth: identity blocks between the others.
//
// Differs from the paper:
// - RMSNorm, SwiGLU, RoPE and grouped heads in place of GPT-2's parts: heads are copied whole, head_dim stays (so do the rotary frequencies and the
//   scale of attention); groups of heads stay, or grow.
// - An identity block is a copy of the one before it with output projections of 0, not with norms of 0: it is the same function, and its projections
//   have a gradient.
// - AdamW's moments are those of the gradient that the larger model has: that of a copy is 1/k of the old one's, also off the diagonal of W', where the
//   authors' program puts 0. New blocks begin without moments, at step 0.
// - `noise`: GPT-2's dropout tells copies apart; without it they would stay equal. The moments are exact for noise=0 only.
// Cost: that of the new model in float32 once, a few numbers drawn for each weight.
#include "base/error.h"
#include "train/growth_plan.h"
#include "train/growth_rows.h"

namespace frugal::train {
namespace {

Grown run(const nn::Model& model, const TensorMap* adamw, const Options& options, uint64_t seed) {
  require_growable(model);
  const Sizes sizes = wanted_sizes(model, options), old = sizes_of(model);
  const auto require_factor = [](const char* name, int64_t before, int64_t after) {
    if (after % before != 0)
      fail(ErrorKind::invalid_input, "{}: {} is no multiple of {}, and staged copies channels equally often; lemon takes other widths", name, after, before);
  };
  require_factor("hidden_size", old.hidden, sizes.hidden);
  require_factor("intermediate_size", old.intermediate, sizes.intermediate);
  require_factor("num_key_value_heads", old.kv_heads, sizes.kv_heads);
  require_factor("heads of a group", old.heads / old.kv_heads, sizes.heads / sizes.kv_heads);
  GrowthPlan plan = function_preserving_plan(model, sizes);
  plan.pairs = true;
  plan.noise = options.number("noise");
  return grow(model, plan, adamw, seed);
}

}  // namespace

GrowthRow staged_row() {
  GrowthRow row;
  row.id = "staged";
  row.title = "Staged training";
  row.leaf = "train";
  row.arxiv = "2203.06211";
  row.summary = "copied channels and identity blocks: the same function, and AdamW's state with it";
  row.options = size_options();
  row.options.push_back(noise_option(0.01, "how far copies are told apart, in parts of a matrix's size (0: as in the paper, they stay equal)"));
  row.function = run;
  row.claims = {{.statement = "the function is the same to 1e-4 before and after",
                 .model = "T",
                 .baseline = {},
                 .method = {"staged:num_hidden_layers=8,hidden_size=384"},
                 .metric = "logits_difference",
                 .bound = 1e-4}};
  return row;
}

}  // namespace frugal::train
