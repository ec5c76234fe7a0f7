// Fixup initialization (arXiv 1901.09321) in the form that was made for transformers, T-Fixup (Huang, Perez, Ba and Volkovs, Improving Transformer
// Optimization Through Better Initialization, ICML 2020, section 3.2): no norms; matrices are Xavier's; the projections of values and of attention's
// output and those of the feed-forward part are smaller by 0.67 N^(-1/4), the embedding by (9 N)^(-1/4), so that a step changes what N blocks add by as much as one
// block of a shallow model would.
//
// The original's rule (L^(-1/(2m-2)) for all matrices of a branch but the last, which is 0, with scalar biases and multipliers) is for branches of m layers
// in a row; attention and a gated MLP are none. T-Fixup's rule for a decoder's blocks, (9 N)^(-1/4), counts the cross-attention that a language model has not: its
// blocks are those of T-Fixup's encoder, whose rule this is.
// Differs from the paper: of the gated feed-forward part `up` and `down` are smaller (see deepnorm.cpp). There is no gain or bias to learn.
// The norms that both papers do without include the last one: a model of this kind learns no vectors at all.
#include <cmath>

#include "train/initialization.h"

namespace frugal::train {
namespace {

double blocks_of(const nn::ModelSpec& spec) { return static_cast<double>(spec.blocks.size()); }

void change(nn::ModelSpec& spec, double initializer_range, const Options& options) {
  const double given = options.number("scale");
  scale_embedding(spec, initializer_range, given > 0 ? given : std::pow(9 * blocks_of(spec), -0.25));
  spec.final_norm = nn::NormKind::none;
  for (nn::BlockSpec& block : spec.blocks) block.norm = nn::NormKind::none;
}

Begin begin(const nn::ModelSpec& spec, const Parameter& tensor, double usual, const Options& options) {
  const double given = options.number("scale"), scale = given > 0 ? given : 0.67 * std::pow(blocks_of(spec), -0.25);
  if (is_embedding_or_head(tensor)) return {usual};
  return {(is_linear_in_branch(tensor) ? scale : 1) * xavier_deviation(tensor)};
}

}  // namespace

InitializationRow fixup_row() {
  InitializationRow row;
  row.id = "fixup";
  row.title = "Fixup (T-Fixup)";
  row.leaf = "train";
  row.arxiv = "1901.09321";
  row.summary = "no norms: matrices of the branches and the embedding drawn smaller the deeper the model is";
  row.options = {number_option("scale", 0, 0, 1e3, "size of these matrices and of the embedding, in parts of the usual one (0: by depth)")};
  row.function = {.change = change, .begin = begin};
  row.claims = {claim_of_new_model("no warm-up needed: without it, a loss within 1 % of that with it", {"fixup"}, {"fixup", "cosine:warmup_steps=0"},
                                   {.steps = 100, .batch_size = 4, .new_blocks = 4, .baseline_rates = {1e-3, 2e-3, 4e-3}, .method_rates = {1e-3, 2e-3, 4e-3}})};
  row.claims.front().factor = 1.01;
  return row;
}

}  // namespace frugal::train
