// frugal convert: GGUF to Hugging Face and back, with tokenizer and template.
#include "base/error.h"
#include "cli/compression.h"
#include "cli/context.h"
#include "cli/resources.h"

namespace frugal::cli {
namespace {

struct ConvertValues {
  std::string input, output, format = "auto", dtype = "F16";
  bool expand = false, overwrite = false;
};

void run(const Context& context, const ConvertValues& values) {
  const nn::LoadedModel loaded = load_model(context, values.input);
  context.loader.save(loaded, values.output,
                      {.format = parse_save_format(values.format),
                       .float_format = values.dtype,
                       .manifest = loaded.manifest,
                       .expand = values.expand,
                       .overwrite = values.overwrite});
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
      .choice("--dtype", values->dtype, {"F16", "BF16", "F32"},
              "Floats of a GGUF file, and weights that become plain floats; other plain floats of a directory stay as they are")
      .flag("--expand", values->expand, "Write weights that the format has no words for as plain floats")
      .flag("--overwrite", values->overwrite, "Replace an output that exists");
}

}  // namespace frugal::cli
