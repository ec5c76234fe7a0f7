// frugal compress: one chain of steps over one model.
#include "base/error.h"
#include "base/log.h"
#include "cli/compression.h"
#include "cli/context.h"
#include "cli/recipe.h"
#include "cli/resources.h"

namespace frugal::cli {
namespace {

struct CompressValues {
  std::string model, output, recipe, calib, format = "auto", dtype = "F16", ledger, name;
  std::vector<std::string> steps;
  int64_t sequences = 0, length = 0;  // 0: the recipe's, else the default
  bool expand = false, overwrite = false;
};

void run(const Context& context, const CompressValues& values) {
  if (values.steps.empty() == values.recipe.empty()) fail(ErrorKind::invalid_input, "give either --step (repeatable) or --recipe");
  Recipe recipe;
  if (!values.recipe.empty()) recipe = read_recipe(values.recipe);
  if (recipe.chains.size() > 1) fail(ErrorKind::invalid_input, "{}: has {} chains; frugal sweep runs them", values.recipe, recipe.chains.size());
  CompressionJob job;
  job.steps = chain::parse_chain(context.steps, values.recipe.empty() ? values.steps : recipe.chains.front().steps);
  job.output = values.output;
  job.format = parse_save_format(values.format);
  job.float_format = values.dtype;
  job.expand = values.expand;
  job.overwrite = values.overwrite;
  job.ledger = values.ledger;
  job.name = values.name;
  job.calibration = recipe.calibration;
  if (values.sequences > 0) job.calibration.sequences = values.sequences;
  if (values.length > 0) job.calibration.sequence_length = values.length;
  nn::LoadedModel loaded = load_model(context, values.model);
  const std::string calib = values.calib.empty() ? recipe.calibration_file : values.calib;
  if (needs_calibration(job.steps))
    job.text = load_calibration_text(loaded, calib);
  else if (!values.calib.empty())
    log_warning("--calib {} is not read: no step of this chain calibrates", printable(values.calib));
  const uint64_t before = loaded.file_bytes;
  const CompressionResult result = compress(context, loaded, weights_hash(loaded), job);
  if (context.json) {
    Json steps = Json::array();
    for (const chain::StepResult& step : result.steps) {
      steps.push_back({{"step", step.text}, {"seconds", step.seconds}, {"peak_rss_bytes", step.peak_rss_bytes}});
    }
    print_json({{"output", values.output}, {"bytes", result.bytes}, {"bytes_before", before}, {"seconds", result.seconds}, {"steps", steps}});
    return;
  }
  for (const chain::StepResult& step : result.steps) {
    print(fmt::format("{}: {:.1f} s, peak memory {:.0f} MB\n", step.text, step.seconds, static_cast<double>(step.peak_rss_bytes) / 1e6));
  }
  print(fmt::format("{}: {:.1f} MB (was {:.1f} MB), {:.1f} s\n", values.output, static_cast<double>(result.bytes) / 1e6, static_cast<double>(before) / 1e6,
                    result.seconds));
}

}  // namespace

void add_compress(CLI::App& app, Context& context) {
  const auto values = std::make_shared<CompressValues>();
  new_verb(app, context, "compress", "Run a chain of methods over a model and write the result", [&context, values] { run(context, *values); })
      .text("model,-m,--model,--hf-repo", values->model, "Path or hub name")
      .required()
      .text("-o,--output", values->output, "Directory, or file that ends in .gguf")
      .required()
      .texts("--step", values->steps, "id or id:key=value,key=value; repeat for a chain (see frugal methods)")
      .text("--recipe", values->recipe, "The chain as a YAML file")
      .text("--calib", values->calib, "Calibration text (default: the installed text)")
      .integer("--calib-sequences", values->sequences, 0, 1 << 20, "Calibration sequences (0: the recipe's, else 16)")
      .integer("--calib-length", values->length, 0, 1 << 20, "Tokens of each (0: the recipe's, else 512)")
      .text("--format", values->format, "auto, hf (transformers reads it), gguf (llama.cpp reads it), frugal (smallest)")
      .choice("--dtype", values->dtype, {"F16", "BF16", "F32"},
              "Floats of a GGUF file, and weights that become plain floats; other plain floats of a directory stay as they are")
      .text("--ledger", values->ledger, "Append a row for each step to this ledger")
      .text("--name", values->name, "Label of the ledger rows")
      .flag("--expand", values->expand, "Write weights that the format has no words for as plain floats")
      .flag("--overwrite", values->overwrite, "Replace an output that exists");
}

}  // namespace frugal::cli
