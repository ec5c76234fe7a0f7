// Prefix tuning (arXiv 2101.00190, section 4): keys and values before those of the text are learned in every block. Learned directly they are
// unstable (section 4.3 there), hence prefix_projection: a small table through a network of two layers, of which only the result is kept. As in
// peft the prefix takes positions 0, 1, ... and is used as it is, without rotary embedding.
//
// Cost: num_virtual_tokens more positions in every sequence, computed for nothing where a sequence is read as a whole (training), once where
// beginnings are cached (serving).
#include "tune/prefix_tuning.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

#include "tune/adapter_sites.h"

namespace frugal::tune {
namespace {

std::unique_ptr<Adapter> run(nn::Model& model, const Options& options, const AttachContext& context) {
  const at::NoGradGuard no_grad;
  io::PeftConfig config;
  config.type = io::PeftType::prefix_tuning;
  config.virtual_tokens = options.integer("num_virtual_tokens");
  config = checked_soft_prompt(model, config, "prefix-tuning");
  const int64_t width = prefix_width(model, "prefix-tuning");
  at::Generator generator = at::detail::createCPUGenerator(context.seed);
  const bool projects = options.boolean("prefix_projection"), zero = options.text("init") == "zero";
  if (options.given("encoder_hidden_size") && !projects) fail(ErrorKind::invalid_input, "prefix-tuning: encoder_hidden_size goes with prefix_projection=true");
  const auto normal = [&](at::IntArrayRef shape) { return at::randn(shape, generator, at::kFloat); };
  const auto uniform = [&](at::IntArrayRef shape, int64_t inputs) {  // as torch begins a linear layer
    const double bound = 1 / std::sqrt(static_cast<double>(inputs));
    return at::empty(shape, at::kFloat).uniform_(-bound, bound, generator);
  };
  std::unique_ptr<SoftPrompt> prompt;
  if (projects) {
    const int64_t narrow = config.token_dim, inner = options.integer("encoder_hidden_size") > 0 ? options.integer("encoder_hidden_size") : narrow;
    Tensor table = normal({config.virtual_tokens, narrow});
    PrefixProjection projection{uniform({inner, narrow}, narrow), uniform({inner}, narrow), uniform({width, inner}, inner), uniform({width}, inner)};
    if (zero) {
      projection.second.zero_();
      projection.second_bias.zero_();
    }
    prompt = prefix_tables(std::move(table), std::move(projection));
  } else {
    prompt = prefix_tables(zero ? at::zeros({config.virtual_tokens, width}, at::kFloat) : normal({config.virtual_tokens, width}));
  }
  return std::make_unique<Adapter>(model, std::move(config), std::move(prompt));
}

}  // namespace

AdapterRow prefix_tuning_row() {
  AdapterRow row;
  row.id = "prefix-tuning";
  row.title = "Prefix tuning";
  row.leaf = "tune";
  row.arxiv = "2101.00190";
  row.summary = "learned keys and values before every text, in each block";
  row.options = {integer_option("num_virtual_tokens", 20, 1, io::kMaxVirtualTokens, "how many"),
                 boolean_option("prefix_projection", true, "learned through a network of two layers, which is left out in the end"),
                 integer_option("encoder_hidden_size", 0, 0, io::kMaxAdapterRank, "width inside that network (0: that of a block's keys)"),
                 choice_option("init", "random", {"random", "zero"}, "how the prefix begins")};
  row.function = run;
  row.claims = {{.statement = "loss under the untuned model's",
                 .model = "T",
                 .baseline = {},
                 .method = {"prefix-tuning"},
                 .metric = "loss",
                 .training = {.steps = 60, .batch_size = 4, .text = "faq", .baseline_rates = {}, .method_rates = {1e-3, 3e-3, 1e-2}}}};
  return row;
}

}  // namespace frugal::tune
