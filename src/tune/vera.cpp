// VeRA (arXiv 2310.11454, equation 2): LoRA's two matrices drawn once, shared by all modules and frozen; learned are a vector of the rank
// (0.1 at first) and one of the outputs (zero at first) each. Modules of unlike size use the first columns and rows, as in peft.
#include "tune/vera.h"

#include "tune/adapter_sites.h"

namespace frugal::tune {
namespace {

std::unique_ptr<Adapter> run(nn::Model& model, const Options& options, const AttachContext& context) {
  io::PeftConfig config;
  config.type = io::PeftType::vera;
  config.rank = options.integer("r");
  config.dropout = options.number("dropout");
  config.target_modules = target_of(options.text("target"));
  config.projection_key = context.seed;
  return attach_new(model, config, "vera", context.seed);
}

}  // namespace

AdapterRow vera_row() {
  AdapterRow row;
  row.id = "vera";
  row.title = "VeRA";
  row.leaf = "tune";
  row.arxiv = "2310.11454";
  row.summary = "shared random matrices, learned vectors";
  row.options = {integer_option("r", 256, 1, io::kMaxAdapterRank, "rank of the shared matrices"),
                 number_option("dropout", 0, 0, 0.99, "share of the adapter's inputs that is dropped in training"), target_option("all-linear")};
  row.function = run;
  row.claims = {
      {.statement = "loss within 2 % of LoRA's",
       .model = "T",
       .baseline = {"lora"},
       .method = {"vera"},
       .metric = "loss",
       .factor = 1.02,
       .training = {.steps = 60, .batch_size = 4, .text = "faq", .baseline_rates = {1e-3, 3e-3, 1e-2}, .method_rates = {3e-3, 1e-2, 3e-2}}},
      {.statement = "a tenth of LoRA's parameters", .model = "T", .baseline = {"lora"}, .method = {"vera"}, .metric = "trainable_parameters", .factor = 0.1}};
  return row;
}

}  // namespace frugal::tune
