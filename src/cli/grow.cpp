// frugal grow: a trained model as the start of a larger one.
#include <filesystem>
#include <optional>

#include "base/error.h"
#include "base/file.h"
#include "base/method_choice.h"
#include "chain/chain.h"
#include "cli/context.h"
#include "cli/resources.h"
#include "cli/terminal.h"
#include "cli/training.h"
#include "train/growth.h"

namespace frugal::cli {
namespace {

struct GrowValues {
  std::string model, method, output;
  bool overwrite = false;
};

// AdamW's state of the run whose result the model is; nothing where the folder holds no run, or one of another optimizer.
std::optional<train::Checkpoint> run_of(const std::string& path, nn::Model& model) {
  if (!std::filesystem::is_directory(path) || !train::has_checkpoints(path)) return {};
  std::optional<train::Checkpoint> checkpoint = train::newest_checkpoint(path);
  const std::string where = fmt::format("{}/checkpoint-{}", path, checkpoint->step);
  const std::string optimizer = JsonObject(checkpoint->state, where + "/trainer_state.json").object("fingerprint").text("optimizer");
  if (parse_step(optimizer).id != "adamw") {
    print_note(fmt::format("{}: the optimizer is {}, only AdamW's state grows with the model", where, optimizer));
    return {};
  }
  model.for_each_tensor([&](const std::string& name, at::Tensor& tensor) {
    const auto found = checkpoint->parameters.find(name);
    if (found == checkpoint->parameters.end() || !found->second.equal(tensor.to(at::kFloat)))
      fail(ErrorKind::invalid_input, "{}: {} is not as in the model beside it: the run has not ended (frugal train --resume) or began anew", where, name);
  });
  return checkpoint;
}

Json sizes_json(const nn::Model& model) {
  const nn::BlockSpec& block = model.spec.blocks.front();
  return {{"num_hidden_layers", model.spec.blocks.size()}, {"hidden_size", model.spec.hidden},
          {"intermediate_size", block.intermediate},       {"num_attention_heads", block.heads},
          {"num_key_value_heads", block.kv_heads},         {"parameters", model.parameters()}};
}

void run(const Context& context, const GrowValues& values) {
  const auto choice = choose_method(train::growth_table(), values.method);
  const train::GrowthRow& row = *choice.row;
  const Options& options = choice.options;
  require_free_output(values.output, values.overwrite, "config.json");
  const nn::LoadedModel small = load_model(context, values.model);
  if (!small.manifest.is_null()) fail(ErrorKind::unsupported, "{}: was made by a chain of compression steps: grow the original, then compress", values.model);
  const auto trained = run_of(values.model, *small.model);
  train::Grown grown = row.function(*small.model, trained ? &trained->optimizer : nullptr, options, context.method_seed());
  const double difference = train::logits_difference(*small.model, *grown.model, context.method_seed());
  nn::LoadedModel large = small;
  large.model = grown.model;
  AtomicDirectory target(values.output, values.overwrite, "config.json");
  whole_model_files(context, large)(target.staging());
  const bool has_state = !grown.optimizer.empty();
  if (has_state) train::write_tensors(target.staging() + "/" + kOptimizerState, grown.optimizer);
  target.commit();

  const Json before = sizes_json(*small.model), after = sizes_json(*grown.model);
  if (context.json) {
    print_json({{"output", values.output},
                {"model", values.model},
                {"method", chain::canonical_text(row.id, options)},
                {"before", before},
                {"after", after},
                {"logits_difference", difference},
                {"optimizer_state_of_step", has_state ? Json(trained->step) : Json()}});
    return;
  }
  std::string text = fmt::format("{}: {} by {}\n", values.output, values.model, chain::canonical_text(row.id, options));
  for (const auto& [name, value] : before.items()) {
    if (value != after[name]) text += fmt::format("  {:<20} {} -> {}\n", name, value.dump(), after[name].dump());
  }
  text += fmt::format("  logits differ by {:.1e} of the largest\n", difference);
  if (has_state) text += fmt::format("  with AdamW's state of step {}\n", trained->step);
  print(text);
}

}  // namespace

void add_grow(CLI::App& app, Context& context) {
  const auto values = std::make_shared<GrowValues>();
  std::string methods;
  for (const train::GrowthRow& row : train::growth_table().rows()) {
    methods += (methods.empty() ? "" : "; ") + row.id + " (";
    for (const OptionSpec& option : row.options) methods += (&option == &row.options.front() ? "" : ", ") + option.name;
    methods += ")";
  }
  new_verb(app, context, "grow", "Make a larger model of a trained one, to train on", [&context, values] { run(context, *values); })
      .text("model,-m,--model,--hf-repo", values->model, "Path or hub name; of a folder that frugal train made, AdamW's state grows as well")
      .required()
      .text("--method", values->method, "How, id or id:key=value,...: " + methods)
      .required()
      .text("-o,--output", values->output, "Directory")
      .required()
      .flag("--overwrite", values->overwrite, "Replace an output that exists");
}

}  // namespace frugal::cli
