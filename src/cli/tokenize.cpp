// frugal tokenize: text to ids and pieces, and back.
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "cli/context.h"
#include "cli/resources.h"
#include "text/tokenizer.h"

namespace frugal::cli {
namespace {

struct TokenizeValues {
  std::string model, prompt, file;
  std::vector<int32_t> ids;
  bool no_special = false, parse_special = false;
};

// Of a model, or of a directory that holds nothing else (`frugal tokenizer train` writes such).
std::shared_ptr<const text::Tokenizer> load_tokenizer(const Context& context, const std::string& model) {
  const std::filesystem::path path = resolve_model_path(context, model);
  std::error_code ignored;
  if (std::filesystem::exists(path / "tokenizer.json", ignored) && !std::filesystem::exists(path / "config.json", ignored)) {
    return text::load_tokenizer_directory(path.string());
  }
  const nn::LoadedModel loaded = load_model(context, model);
  if (!loaded.tokenizer) fail(ErrorKind::invalid_input, "{}: the checkpoint has no tokenizer", loaded.name);
  return loaded.tokenizer;
}

void run(const Context& context, const TokenizeValues& values) {
  if (!values.prompt.empty() + !values.file.empty() + !values.ids.empty() != 1) fail(ErrorKind::invalid_input, "give one of --prompt, --file and --ids");
  const auto loaded = load_tokenizer(context, values.model);
  const text::Tokenizer& tokenizer = *loaded;
  std::vector<int32_t> ids = values.ids;
  if (ids.empty()) {
    const std::string text = values.file.empty() ? values.prompt : read_text_file(values.file, size_t{1} << 30);
    ids = tokenizer.encode(text, {.add_special = !values.no_special, .parse_special = values.parse_special});
  }
  const std::string decoded = tokenizer.decode(ids);
  if (context.json) {
    Json pieces = Json::array();
    for (const int32_t id : ids) pieces.push_back(tokenizer.piece(id));
    print_json({{"ids", ids}, {"pieces", pieces}, {"text", decoded}});
    return;
  }
  if (!values.ids.empty()) {
    print(decoded + "\n");
    return;
  }
  std::string out;
  for (const int32_t id : ids) out += fmt::format("{:>8} -> '{}'\n", id, printable(tokenizer.piece(id), 200));
  print(out + fmt::format("{} tokens\n", ids.size()));
}

}  // namespace

void add_tokenize(CLI::App& app, Context& context) {
  const auto values = std::make_shared<TokenizeValues>();
  new_verb(app, context, "tokenize", "Text to token ids and pieces, and back", [&context, values] { run(context, *values); })
      .text("-m,--model,--hf-repo", values->model, "Path or hub name of a model, or a directory with a tokenizer")
      .required()
      .text("-p,--prompt", values->prompt, "Text")
      .text("-f,--file", values->file, "Text file")
      .integers("--ids", values->ids, "Ids to turn back into text")
      .flag("--no-special,--no-bos", values->no_special, "Add no BOS or EOS")
      .flag("--parse-special", values->parse_special, "Special tokens written in the text are those tokens");
}

}  // namespace frugal::cli
