// Depth stacking (Gong et al., Efficient Training of BERT by Progressively Stacking, ICML 2019): a model of L blocks becomes one of 2 L
// whose block L + i is a copy of block i; the rest is copied. Of other depths than multiples, the blocks on top are copies of the topmost ones, as in
// Progressively Stacking 2.0 (arXiv 2011.13635). The function is not kept: training goes on from a higher loss than before, and falls faster than from the start.
//
// Differs from 2.0: which blocks train is not part of it (there only the new ones do, in stages). Cost: a copy.
#include "base/error.h"
#include "train/growth_plan.h"
#include "train/growth_rows.h"

namespace frugal::train {
namespace {

Grown run(const nn::Model& model, const TensorMap*, const Options& options, uint64_t seed) {
  require_growable(model);
  Sizes sizes = sizes_of(model);
  const int64_t depth = sizes.layers;
  sizes.layers = options.integer("num_hidden_layers");
  if (sizes.layers == 0) sizes.layers = 2 * depth;
  if (sizes.layers <= depth) fail(ErrorKind::invalid_input, "num_hidden_layers: the model has {}, {} is not more: it can only grow", depth, sizes.layers);
  GrowthPlan plan = function_preserving_plan(model, sizes_of(model));
  plan.sizes = sizes;
  for (int64_t i = depth; i < sizes.layers; ++i) plan.blocks.push_back({static_cast<size_t>(depth - 1 - (sizes.layers - 1 - i) % depth), false});
  return grow(model, plan, nullptr, seed);
}

}  // namespace

GrowthRow stacking_row() {
  GrowthRow row;
  row.id = "stacking";
  row.title = "Progressive stacking";
  row.leaf = "train";
  row.arxiv = "2011.13635";
  row.summary = "copies of the blocks on top of them";
  row.options = {integer_option("num_hidden_layers", 0, 0, 1 << 12, "blocks (0: twice as many)")};
  row.function = run;
  row.claims = {{.statement = "reaches the loss of a model of full depth from the start in fewer FLOPs",
                 .model = "T",
                 .baseline = {"full", "constant_with_warmup:warmup_ratio=0.1"},
                 .method = {"stacking", "constant_with_warmup:warmup_ratio=0.1"},
                 .metric = "flops_to_loss",
                 .training = {.steps = 120, .batch_size = 4, .new_blocks = 4, .steps_before_growth = 60, .baseline_rates = {2e-3}, .method_rates = {2e-3}}}};
  return row;
}

}  // namespace frugal::train
