// AdaLoRA (arXiv 2303.10512): LoRA as P Lambda Q, whose singular values are dropped as training goes on, the least important of all modules
// first, from init_r down to target_r a module on average (equations 3, 7 to 11). A penalty keeps P and Q orthogonal. What differs from the
// paper is as in peft: the scale is alpha / init_r throughout, and the penalty is of norms, not of their squares.
//
// Cost: LoRA's of rank init_r, and two running means of every number that trains.
#include "tune/adalora.h"

#include "tune/adapter_sites.h"

namespace frugal::tune {
namespace {

std::unique_ptr<Adapter> run(nn::Model& model, const Options& options, const AttachContext& context) {
  io::PeftConfig config;
  config.type = io::PeftType::adalora;
  config.rank = options.integer("init_r");
  config.alpha = options.number("alpha");
  config.dropout = options.number("dropout");
  config.target_modules = target_of(options.text("target"));
  config.budget = {.target_r = options.integer("target_r"),
                   .tinit = options.integer("tinit"),
                   .tfinal = options.integer("tfinal"),
                   .delta_t = options.integer("deltaT"),
                   .beta1 = options.number("beta1"),
                   .beta2 = options.number("beta2"),
                   .orth_reg_weight = options.number("orth_reg_weight")};
  if (config.budget.target_r > config.rank)
    fail(ErrorKind::invalid_input, "adalora: target_r {} is more than init_r {}, from which it falls", config.budget.target_r, config.rank);
  std::unique_ptr<Adapter> adapter = attach_new(model, config, "adalora", context.seed);
  adapter->allot_ranks();
  return adapter;
}

}  // namespace

AdapterRow adalora_row() {
  constexpr int64_t kMostSteps = int64_t{1} << 40;
  AdapterRow row;
  row.id = "adalora";
  row.title = "AdaLoRA";
  row.leaf = "tune";
  row.arxiv = "2303.10512";
  row.summary = "LoRA in the form of a singular value decomposition; unimportant ranks are dropped while it trains";
  row.options = {integer_option("init_r", 12, 1, io::kMaxAdapterRank, "rank of each module at first"),
                 integer_option("target_r", 8, 0, io::kMaxAdapterRank, "rank of a module at last, on average"),
                 number_option("alpha", 8, 0, 1e6, "what the product is multiplied with, over init_r"),
                 number_option("dropout", 0, 0, 0.99, "share of the adapter's inputs that is dropped in training"),
                 integer_option("tinit", 0, 0, kMostSteps, "steps before ranks are dropped"),
                 integer_option("tfinal", 0, 0, kMostSteps, "steps at the end in which none is dropped any more"),
                 integer_option("deltaT", 1, 1, kMostSteps, "steps from one allotment to the next"),
                 number_option("beta1", 0.85, 0, 1, "decay of the running mean of sensitivities"),
                 number_option("beta2", 0.85, 0, 1, "decay of the running mean of uncertainties"),
                 number_option("orth_reg_weight", 0.5, 0, 1e6, "weight of the penalty"),
                 target_option("all-linear")};
  row.function = run;
  row.claims = {{.statement = "loss under that of LoRA of the same number of ranks",
                 .model = "T",
                 .baseline = {"lora"},
                 .method = {"adalora"},
                 .metric = "loss",
                 .training = {.steps = 60, .batch_size = 4, .text = "faq", .baseline_rates = {1e-3, 3e-3, 1e-2}, .method_rates = {3e-3, 1e-2, 3e-2}}}};
  return row;
}

}  // namespace frugal::tune
