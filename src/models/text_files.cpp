#include "models/text_files.h"

#include <filesystem>

#include "base/checked.h"
#include "base/file.h"
#include "io/checkpoint.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"
#include "text/tokenizer_convert.h"

namespace frugal::models {
namespace {

using io::Checkpoint;
using nn::LoadedModel;

constexpr size_t kMaxTextFile = size_t{256} << 20;
constexpr int64_t kUnusedToken = 5;  // llama.cpp's LLAMA_TOKEN_TYPE_UNUSED

std::string dump(const Json& json) { return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n"; }

const Checkpoint* source_of(const LoadedModel& model) { return static_cast<const Checkpoint*>(model.source.get()); }

Json tokenizer_config_of(const LoadedModel& model) {
  const text::SpecialTokens& special = model.tokenizer->special();
  Json config = {
      {"tokenizer_class", "PreTrainedTokenizerFast"}, {"clean_up_tokenization_spaces", false}, {"model_max_length", model.model->spec.context_length}};
  const auto add = [&](const char* key, const std::optional<int32_t>& id) {
    if (id) config[key] = std::string(model.tokenizer->token_text(*id));
  };
  add("bos_token", special.bos);
  add("eos_token", special.eos);
  add("unk_token", special.unk);
  add("pad_token", special.pad);
  if (model.chat_template) config["chat_template"] = model.chat_template->source();
  return config;
}

Json generation_config_of(const LoadedModel& model) {
  Json config = model.generation_config.is_object() ? model.generation_config : Json::object();
  add_token_ids(model, config);
  if (model.end_ids.size() > 1) config["eos_token_id"] = model.end_ids;
  return config;
}

// Embeddings often have more rows than there are tokens; llama.cpp wants a token for each.
void pad_tokens(Metadata& metadata, int64_t vocab) {
  std::vector<std::string> tokens = metadata.texts("tokenizer.ggml.tokens");
  const auto count = static_cast<int64_t>(tokens.size());
  if (count > vocab) fail(ErrorKind::unsupported, "the tokenizer has {} tokens, the embedding only {} rows: GGUF cannot say that", count, vocab);
  for (int64_t id = count; id < vocab; ++id) tokens.push_back(fmt::format("[PAD{}]", id));
  const auto extend = [&](const char* key, auto values, auto value) {
    values.resize(static_cast<size_t>(vocab), value);
    metadata.set(key, std::move(values));
  };
  metadata.set("tokenizer.ggml.tokens", std::move(tokens));
  if (metadata.has("tokenizer.ggml.token_type")) extend("tokenizer.ggml.token_type", metadata.integers("tokenizer.ggml.token_type"), kUnusedToken);
  if (metadata.has("tokenizer.ggml.scores")) extend("tokenizer.ggml.scores", metadata.numbers("tokenizer.ggml.scores"), -1000.0);
}

}  // namespace

void add_token_ids(const LoadedModel& model, Json& config) {
  if (!model.tokenizer) return;
  const text::SpecialTokens& special = model.tokenizer->special();
  if (special.bos) config["bos_token_id"] = *special.bos;
  if (special.eos) config["eos_token_id"] = *special.eos;
  if (special.pad) config["pad_token_id"] = *special.pad;
}

void write_text_files(const LoadedModel& model, const std::string& directory) {
  const Checkpoint* source = source_of(model);
  if (!source) return;
  if (source->container == io::Container::huggingface) {
    io::copy_text_files(source->path, directory);
    return;
  }
  if (!model.tokenizer) return;
  write_text_file(directory + "/tokenizer.json", dump(text::tokenizer_json_from_metadata(source->metadata)));
  write_text_file(directory + "/tokenizer_config.json", dump(tokenizer_config_of(model)));
  write_text_file(directory + "/generation_config.json", dump(generation_config_of(model)));
  if (model.chat_template) write_text_file(directory + "/chat_template.jinja", model.chat_template->source());
}

Metadata gguf_text_metadata(const LoadedModel& model) {
  const Checkpoint* source = source_of(model);
  if (!source || source->container != io::Container::huggingface || !model.tokenizer) return Metadata("GGUF");
  Metadata metadata("GGUF");
  if (const auto json = io::find_in_directory(source->path, "tokenizer.json")) {
    metadata = text::gguf_tokenizer_metadata(parse_json(read_text_file(*json, kMaxTextFile), *json),
                                             io::read_json_in_directory(source->path, "tokenizer_config.json"));
  } else {
    for (const char* name : {"tokenizer.model", "spiece.model"}) {
      const auto path = io::find_in_directory(source->path, name);
      if (!path) continue;
      const auto file = MappedFile::open(*path);
      metadata = text::gguf_tokenizer_metadata(file->bytes(), *path);
      break;
    }
  }
  if (metadata.has("tokenizer.ggml.tokens")) pad_tokens(metadata, model.model->spec.vocab);
  if (model.chat_template) metadata.set("tokenizer.chat_template", model.chat_template->source());
  return metadata;
}

}  // namespace frugal::models
