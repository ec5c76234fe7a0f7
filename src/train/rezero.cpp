// ReZero is All You Need (arXiv 2003.04887), equation 2 and section 5: x <- x + a f(x) with a learned a that begins at 0, and no norms. The model begins as
// the identity, so that signals and gradients pass any depth; what the blocks do comes in as a grows.
//
// Differs from the paper's transformer: attention and MLP of a block have a number each (equation 2; the authors' program shares one); matrices are
// Xavier's, normal; the embedding is that of initialization.h.
#include "train/initialization.h"

namespace frugal::train {
namespace {

void change(nn::ModelSpec& spec, double initializer_range, const Options&) {
  scale_embedding(spec, initializer_range);
  spec.final_norm = nn::NormKind::none;
  for (nn::BlockSpec& block : spec.blocks) {
    block.norm = nn::NormKind::none;
    block.branch_scales = true;
  }
}

Begin begin(const nn::ModelSpec&, const Parameter& tensor, double usual, const Options&) {
  if (tensor.tensor.dim() < 2) return {0};
  return {is_embedding_or_head(tensor) ? usual : xavier_deviation(tensor)};
}

}  // namespace

InitializationRow rezero_row() {
  InitializationRow row;
  row.id = "rezero";
  row.title = "ReZero";
  row.leaf = "train";
  row.arxiv = "2003.04887";
  row.summary = "no norms: what a branch adds is times a learned number that begins at 0";
  row.function = {.change = change, .begin = begin};
  row.claims = {claim_of_new_model("faster early: a lower loss than pre-norm blocks after the same 60 steps", {"full"}, {"rezero"},
                                   {.steps = 60, .batch_size = 4, .new_blocks = 4, .baseline_rates = {1e-3, 2e-3, 4e-3}, .method_rates = {1e-3, 2e-3, 4e-3}})};
  return row;
}

}  // namespace frugal::train
