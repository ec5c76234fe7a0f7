// DoRA (arXiv 2402.09353, equation 5): LoRA changes the direction of each row of the weight, a vector its length. The norm takes no gradient
// (section 4.3 there).
//
// Cost: LoRA's and out numbers; each training step makes W + B A and its norms once more.
#include "tune/dora.h"

#include "tune/adapter_sites.h"

namespace frugal::tune {
namespace {

std::unique_ptr<Adapter> run(nn::Model& model, const Options& options, const AttachContext& context) {
  io::PeftConfig config = lora_config(options);
  config.dora = true;
  return attach_new(model, config, "dora", context.seed);
}

}  // namespace

AdapterRow dora_row() {
  AdapterRow row;
  row.id = "dora";
  row.title = "DoRA";
  row.leaf = "tune";
  row.arxiv = "2402.09353";
  row.summary = "LoRA for the direction of each row, a learned magnitude for its length";
  row.options = lora_options();
  row.function = run;
  row.claims = {{.statement = "loss under LoRA's at equal rank and steps",
                 .model = "T",
                 .baseline = {"lora"},
                 .method = {"dora"},
                 .metric = "loss",
                 .training = {.steps = 60, .batch_size = 4, .text = "faq", .baseline_rates = {1e-3, 3e-3, 1e-2}, .method_rates = {1e-3, 3e-3, 1e-2}}}};
  return row;
}

}  // namespace frugal::tune
