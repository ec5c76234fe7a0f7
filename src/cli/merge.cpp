// frugal merge: an adapter's product goes into the weights, or is taken out of them again.
#include "base/error.h"
#include "cli/compression.h"
#include "cli/context.h"
#include "cli/resources.h"
#include "tune/adapter.h"

namespace frugal::cli {
namespace {

struct MergeValues {
  std::string model, output, format = "auto", dtype = "F16";
  std::vector<std::string> adapters;
  bool unmerge = false, overwrite = false;
};

void run(const Context& context, const MergeValues& values) {
  nn::LoadedModel model = load_model(context, values.model);
  for (const std::string& path : values.adapters) {
    const auto adapter = tune::load_adapter(*model.model, path, values.unmerge ? -1.0 : 1.0);
    adapter->merge(values.dtype == "F32" ? at::kFloat : values.dtype == "BF16" ? at::kBFloat16 : at::kHalf);
  }
  nn::SaveOptions options;
  options.format = parse_save_format(values.format);
  options.float_format = values.dtype;
  options.overwrite = values.overwrite;
  context.loader.save(model, values.output, options);
  if (context.json)
    print_json({{"output", values.output}, {"adapters", values.adapters}, {"unmerged", values.unmerge}});
  else
    print(fmt::format("{}: {} {} {}\n", values.output, values.model, values.unmerge ? "without" : "with", fmt::join(values.adapters, ", ")));
}

}  // namespace

void add_merge(CLI::App& app, Context& context) {
  const auto values = std::make_shared<MergeValues>();
  new_verb(app, context, "merge", "Put adapters into a model's weights, or take them out again", [&context, values] { run(context, *values); })
      .text("model,-m,--model,--hf-repo", values->model, "Path or hub name")
      .required()
      .texts("--lora", values->adapters, "Directory of an adapter, as peft keeps it; repeat for more, in their order")
      .required()
      .text("-o,--output", values->output, "Directory, or file that ends in .gguf")
      .required()
      .flag("--unmerge", values->unmerge, "Take the adapter out of a model that it is in (LoRA)")
      .text("--format", values->format, "auto, hf, gguf, frugal, as in compress")
      .choice("--dtype", values->dtype, {"F16", "BF16", "F32"}, "Floats that encoded weights become where an adapter changes them, and those of a GGUF file")
      .flag("--overwrite", values->overwrite, "Replace an output that exists");
}

}  // namespace frugal::cli
