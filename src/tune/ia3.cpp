// (IA)^3 (arXiv 2205.05638, section 3.3): learned vectors that scale keys, values and the inner activations of the MLP; all begin at one.
// The last are scaled as the input of the down projection, as peft does.
#include "tune/ia3.h"

#include "tune/adapter_sites.h"

namespace frugal::tune {
namespace {

std::unique_ptr<Adapter> run(nn::Model& model, const Options& options, const AttachContext& context) {
  io::PeftConfig config;
  config.type = io::PeftType::ia3;
  config.target_modules = target_of(options.text("target"));
  if (const std::string& inputs = options.text("feedforward"); !inputs.empty()) config.feedforward_modules = target_of(inputs);
  return attach_new(model, config, "ia3", context.seed);
}

}  // namespace

AdapterRow ia3_row() {
  AdapterRow row;
  row.id = "ia3";
  row.title = "(IA)^3";
  row.leaf = "tune";
  row.arxiv = "2205.05638";
  row.summary = "learned vectors scale keys, values and inner activations";
  row.options = {target_option("k_proj+v_proj+down_proj"), text_option("feedforward", "down_proj", "those of target whose input is scaled, not the output")};
  row.function = run;
  row.claims = {
      {.statement = "loss under the untuned model's",
       .model = "T",
       .baseline = {},
       .method = {"ia3"},
       .metric = "loss",
       .training = {.steps = 60, .batch_size = 4, .text = "faq", .baseline_rates = {}, .method_rates = {3e-3, 1e-2, 3e-2}}},
      {.statement = "0.01 % of the parameters", .model = "S", .baseline = {"full"}, .method = {"ia3"}, .metric = "trainable_parameters", .factor = 1e-4}};
  return row;
}

}  // namespace frugal::tune
