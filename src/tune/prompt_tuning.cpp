// Prompt tuning (arXiv 2104.08691, section 2): rows before the embedded text are all that is learned. They begin as embeddings of tokens that are
// drawn from the vocabulary, as those of a text, or at random (section 3.2 there); the paper draws from its 5,000 most common tokens, here as in
// peft all are equal.
//
// Cost: num_virtual_tokens more positions in every sequence; its gradient goes through the whole model.
#include "tune/prompt_tuning.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>

#include "text/tokenizer.h"
#include "tune/adapter_sites.h"

namespace frugal::tune {
namespace {

// As often as it goes in, or its beginning.
std::vector<int32_t> repeated(const std::string& text, int64_t count, const AttachContext& context) {
  if (text.empty()) fail(ErrorKind::invalid_input, "prompt-tuning: init=text takes init_text");
  if (!context.tokenizer) fail(ErrorKind::invalid_input, "prompt-tuning: init_text is for a model with a tokenizer");
  const std::vector<int32_t> ids = context.tokenizer->encode(text, {.add_special = true});
  if (ids.empty()) fail(ErrorKind::invalid_input, "prompt-tuning: init_text has no tokens");
  std::vector<int32_t> result(static_cast<size_t>(count));
  for (size_t i = 0; i < result.size(); ++i) result[i] = ids[i % ids.size()];
  return result;
}

std::unique_ptr<Adapter> run(nn::Model& model, const Options& options, const AttachContext& context) {
  const at::NoGradGuard no_grad;
  io::PeftConfig config;
  config.type = io::PeftType::prompt_tuning;
  config.virtual_tokens = options.integer("num_virtual_tokens");
  config = checked_soft_prompt(model, config, "prompt-tuning");
  at::Generator generator = at::detail::createCPUGenerator(context.seed);
  const std::string& init = options.text("init");
  if (options.given("init_text") && init != "text") fail(ErrorKind::invalid_input, "prompt-tuning: init_text goes with init=text");
  Tensor rows;
  if (init == "random") {
    rows = at::randn({config.virtual_tokens, model.spec.hidden}, generator, at::kFloat);
  } else if (init == "text") {
    rows = model.embed(repeated(options.text("init_text"), config.virtual_tokens, context)).to(at::kFloat).clone();
  } else {
    const Tensor ids = at::randint(model.spec.vocab, {config.virtual_tokens}, generator, at::kInt);
    rows = model.embed({ids.const_data_ptr<int32_t>(), static_cast<size_t>(ids.numel())}).to(at::kFloat).clone();
  }
  return std::make_unique<Adapter>(model, std::move(config), prompt_rows(std::move(rows)));
}

}  // namespace

AdapterRow prompt_tuning_row() {
  AdapterRow row;
  row.id = "prompt-tuning";
  row.title = "Prompt tuning";
  row.leaf = "tune";
  row.arxiv = "2104.08691";
  row.summary = "learned embeddings before every text";
  row.options = {integer_option("num_virtual_tokens", 20, 1, io::kMaxVirtualTokens, "how many"),
                 choice_option("init", "vocab", {"vocab", "text", "random"}, "they begin as embeddings of drawn tokens, of init_text, or at random"),
                 text_option("init_text", "", "text that they begin as, repeated or cut")};
  row.function = run;
  row.claims = {{.statement = "loss under the untuned model's",
                 .model = "T",
                 .baseline = {},
                 .method = {"prompt-tuning"},
                 .metric = "loss",
                 .training = {.steps = 60, .batch_size = 4, .text = "faq", .baseline_rates = {}, .method_rates = {3e-3, 1e-2, 3e-2}}},
                {.statement = "under 0.1 % of the parameters",
                 .model = "S",
                 .baseline = {"full"},
                 .method = {"prompt-tuning"},
                 .metric = "trainable_parameters",
                 .factor = 1e-3}};
  return row;
}

}  // namespace frugal::tune
