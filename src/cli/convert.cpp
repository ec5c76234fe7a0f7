// frugal convert: GGUF to Hugging Face and back, with tokenizer and template.
#include "base/error.h"
#include "cli/compression.h"
#include "cli/context.h"
#include "cli/resources.h"

namespace frugal::cli {
namespace {

struct ConvertValues {
  std::string input, output, format = "auto", dtype = "F16";
  bool overwrite = false;
};

void run(const Context& context, const ConvertValues& values) {
  const nn::LoadedModel loaded = load_model(context, values.input);
  nn::SaveOptions options{parse_save_format(values.format), values.dtype, loaded.manifest, values.overwrite};
  context.loader.save(loaded, values.output, options);
  const nn::LoadedModel written = context.loader.load(values.output);
  if (context.json) {
    print_json({{"output", values.output}, {"bytes", written.file_bytes}, {"bytes_before", loaded.file_bytes}});
  } else {
    print(fmt::format("{}: {:.1f} MB (was {:.1f} MB)\n", values.output, static_cast<double>(written.file_bytes) / 1e6,
                      static_cast<double>(loaded.file_bytes) / 1e6));
  }
}

}  // namespace

void add_convert(CLI::App& app, Context& context) {
  const auto values = std::make_shared<ConvertValues>();
  new_verb(app, context, "convert", "Write a model in another container, with its tokenizer and template", [&context, values] { run(context, *values); })
      .text("input", values->input, "Path or hub name")
      .required()
      .text("output", values->output, "Directory, or file that ends in .gguf")
      .required()
      .text("--format", values->format, "auto, hf, gguf, frugal")
      .choice("--dtype", values->dtype, {"F16", "BF16", "F32"}, "What floats are written as where the target cannot hold the source's format")
      .flag("--overwrite", values->overwrite, "Replace an output that exists");
}

}  // namespace frugal::cli
