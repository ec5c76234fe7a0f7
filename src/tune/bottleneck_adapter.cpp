// Bottleneck adapters (arXiv 1902.00751, section 2): behind attention and behind the MLP a narrow layer with an activation and a residual
// connection, whose second matrix begins at zero. Parallel ones stand beside any module instead (arXiv 2304.01933, section 2.1). Without the
// biases of the first paper, as the second one's program. The result is no matrix: it cannot be merged.
#include "tune/bottleneck_adapter.h"

#include "tune/adapter_sites.h"

namespace frugal::tune {
namespace {

std::unique_ptr<Adapter> run(nn::Model& model, const Options& options, const AttachContext& context) {
  io::PeftConfig config;
  config.type = io::PeftType::bottleneck;
  config.rank = options.integer("size");
  config.dropout = options.number("dropout");
  config.parallel = options.boolean("parallel");
  config.scaling = options.number("scale");
  config.activation = options.text("activation");
  config.target_modules = target_of(options.text("target"));
  return attach_new(model, config, "bottleneck-adapter", context.seed);
}

}  // namespace

AdapterRow bottleneck_adapter_row() {
  AdapterRow row;
  row.id = "bottleneck-adapter";
  row.title = "Bottleneck adapters";
  row.leaf = "tune";
  row.arxiv = "1902.00751";
  row.summary = "narrow layers with an activation behind attention and MLP, or beside any module";
  row.options = {integer_option("size", 64, 1, io::kMaxAdapterRank, "width of the narrow layer"),
                 choice_option("activation", "relu", {std::begin(io::kBottleneckActivations), std::end(io::kBottleneckActivations)}, "inside"),
                 boolean_option("parallel", false, "beside the modules instead of behind them"),
                 number_option("scale", 1, 0, 1e6, "what the narrow layer's output is multiplied with"),
                 number_option("dropout", 0, 0, 0.99, "share of the adapter's inputs that is dropped in training"),
                 target_option("o_proj+down_proj")};
  row.function = run;
  row.claims = {{.statement = "loss within 2 % of full tuning's",
                 .model = "T",
                 .baseline = {"full"},
                 .method = {"bottleneck-adapter:size=16"},
                 .metric = "loss",
                 .factor = 1.02,
                 .training = {.steps = 60, .batch_size = 4, .text = "faq", .baseline_rates = {3e-4, 1e-3, 3e-3}, .method_rates = {1e-3, 3e-3, 1e-2}}},
                {.statement = "at most 3 % of the parameters",
                 .model = "T",
                 .baseline = {"full"},
                 .method = {"bottleneck-adapter:size=16"},
                 .metric = "trainable_parameters",
                 .factor = 0.03}};
  return row;
}

}  // namespace frugal::tune
