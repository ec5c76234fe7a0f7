// Maximal update parametrization (Tensor Programs V, arXiv 2203.03466; the authors' package microsoft/mup), table 8 for Adam: rates and deviations that were
// tuned at base_width are right at any other. With m = hidden_size / base_width, what the usual start at base_width has becomes
//   matrices of the blocks    deviation / sqrt(m), rate / m
//   embedding, norms          the same
//   logits                    times 1 / m
//   attention                 q k / d in place of q k / sqrt(d)
// At m = 1 it is the usual start. initializer_range is that of base_width.
//
// The model stays a plain Llama, for transformers and llama.cpp too. Adam's steps do not depend on the gradient's size, so that a factor f of a tensor is the
// same, step by step, as a tensor that begins at f and learns at f times the rate (which is how the paper's tables 3, 8 and 9 are one parametrization): the factor of the logits is the
// final norm's (with an untied head the head's own: its deviation and rate over m, table 3), that of attention, sqrt(base_head_dim / head_dim), is W_q's.
//
// Differs from the package: weight decay is that of the optimizer times the tensor's rate, and so less in wider models, where the package keeps it; the
// rules are in parts of the width for intermediate_size too, which should grow with it; the query and the head do not begin at 0, which the paper
// recommends but does not need.
#include <cmath>

#include "base/error.h"
#include "train/initialization.h"

namespace frugal::train {
namespace {

Begin begin(const nn::ModelSpec& spec, const Parameter& tensor, double usual, const Options& options) {
  const double m = static_cast<double>(spec.hidden) / static_cast<double>(options.integer("base_width"));
  if (tensor.name == "model.embed_tokens.weight") return {usual};
  if (tensor.name == "lm_head.weight") return {usual / m, 1 / m};
  if (tensor.name == "model.norm.weight") return spec.tied_embeddings ? Begin{usual / m, 1 / m} : Begin{usual};
  if (tensor.tensor.dim() < 2) return {usual};
  double attention = 1;
  if (const int64_t base = options.integer("base_head_dim"); base > 0 && tensor.name.ends_with("q_proj.weight")) {
    attention = std::sqrt(static_cast<double>(base) / static_cast<double>(spec.blocks.front().head_dim));
  }
  return {attention * usual / std::sqrt(m), attention / m};
}

}  // namespace

InitializationRow mup_row() {
  InitializationRow row;
  row.id = "mup";
  row.title = "Maximal update parametrization";
  row.leaf = "train";
  row.arxiv = "2203.03466";
  row.summary = "deviations and rates by width, so that what was tuned on a narrow model is right for a wide one";
  row.options = {integer_option("base_width", 256, 1, 1 << 20, "hidden_size at which rates and initializer_range are those that are given"),
                 integer_option("base_head_dim", 0, 0, 1 << 20, "channels of a head at base_width (0: as many as now, wider models have more heads)")};
  row.function = {.begin = begin, .wants_adam = true};
  row.claims = {
      claim_of_new_model("the rate that is best at width 64 is right at width 256: a lower loss there than the usual start with its best rate of width 64",
                         {"full"}, {"mup:base_width=64"},
                         {.steps = 80,
                          .batch_size = 4,
                          .sequence_len = 64,
                          .new_blocks = 2,
                          .new_width = 256,
                          .tuned_width = 64,
                          .baseline_rates = {4e-3, 8e-3, 1.6e-2, 3.2e-2},
                          .method_rates = {4e-3, 8e-3, 1.6e-2, 3.2e-2}})};
  return row;
}

}  // namespace frugal::train
