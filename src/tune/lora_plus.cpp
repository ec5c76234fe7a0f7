// LoRA+ (arXiv 2402.12354, section 4.2): LoRA whose B learns faster than its A, by a fixed ratio. The paper sets the ratio to 16 for
// large models.
#include "tune/lora_plus.h"

#include "tune/adapter_sites.h"

namespace frugal::tune {
namespace {

std::unique_ptr<Adapter> run(nn::Model& model, const Options& options, const AttachContext& context) {
  std::unique_ptr<Adapter> adapter = attach_new(model, lora_config(options), "lora-plus", context.seed);
  adapter->set_learning_rate_ratio(options.number("ratio"));
  return adapter;
}

}  // namespace

AdapterRow lora_plus_row() {
  AdapterRow row;
  row.id = "lora-plus";
  row.title = "LoRA+";
  row.leaf = "tune";
  row.arxiv = "2402.12354";
  row.summary = "LoRA with a higher learning rate for B than for A";
  row.options = lora_options();
  row.options.push_back(number_option("ratio", 16, 1, 1e4, "learning rate of B over that of A"));
  row.function = run;
  row.claims = {{.statement = "loss under LoRA's after equal steps",
                 .model = "T",
                 .baseline = {"lora"},
                 .method = {"lora-plus"},
                 .metric = "loss",
                 .training = {.steps = 60, .batch_size = 4, .text = "faq", .baseline_rates = {1e-3, 3e-3, 1e-2}, .method_rates = {3e-4, 1e-3, 3e-3}}}};
  return row;
}

}  // namespace frugal::tune
