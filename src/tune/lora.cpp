// LoRA (arXiv 2106.09685, section 4.1): beside a frozen W a product of two small matrices, W x + alpha / r * B A x. A is drawn, B begins at
// zero. With rslora the factor is alpha / sqrt(r) (arXiv 2312.03732). As in peft, A is drawn uniformly rather than from a normal.
//
// Cost: r (in + out) numbers each, their gradients and optimizer state; the base takes no gradient. Its backward needs the input of each
// module (for A), where plain inference of the base would keep none.
#include "tune/lora.h"

#include "tune/adapter_sites.h"

namespace frugal::tune {
namespace {

std::unique_ptr<Adapter> run(nn::Model& model, const Options& options, const AttachContext& context) {
  return attach_new(model, lora_config(options), "lora", context.seed);
}

}  // namespace

AdapterRow lora_row() {
  AdapterRow row;
  row.id = "lora";
  row.title = "LoRA";
  row.leaf = "tune";
  row.arxiv = "2106.09685";
  row.summary = "a low-rank product beside each frozen weight; rsLoRA's scale as an option";
  row.options = lora_options();
  row.function = run;
  row.claims = {{.statement = "the merged model computes what the unmerged one does, to 1e-4",
                 .model = "S",
                 .baseline = {},
                 .method = {"lora"},
                 .metric = "merge_difference",
                 .bound = 1e-4,
                 .training = {.steps = 4, .batch_size = 1, .method_rates = {3e-3}}}};
  return row;
}

}  // namespace frugal::tune
