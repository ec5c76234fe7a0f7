// What sentence-transformers writes beside a model: modules.json, the pooling's config.json, sentence_bert_config.json.
#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "models/encoder.h"

namespace frugal::models {
namespace {

using io::Checkpoint;
using nn::EmbeddingSpec;
using nn::Pooling;

constexpr int64_t kMaxContext = int64_t{1} << 36;

Pooling pooling_named(const JsonObject& config, std::string_view key, const std::string& name) {
  if (name == "mean") return Pooling::mean;
  if (name == "cls") return Pooling::cls;
  if (name == "lasttoken" || name == "last") return Pooling::last;
  fail(ErrorKind::unsupported, "{}.{}: pooling \"{}\" is not supported (mean, cls, lasttoken are)", config.path(), key, printable(name));
}

// Either {"pooling_mode": "mean"} or flags, {"pooling_mode_mean_tokens": true}.
Pooling pooling_of(const JsonObject& config) {
  if (config.has("pooling_mode")) return pooling_named(config, "pooling_mode", config.text("pooling_mode"));
  constexpr std::pair<const char*, const char*> kFlags[] = {{"pooling_mode_cls_token", "cls"},
                                                            {"pooling_mode_mean_tokens", "mean"},
                                                            {"pooling_mode_lasttoken", "lasttoken"},
                                                            {"pooling_mode_max_tokens", "max"},
                                                            {"pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len"},
                                                            {"pooling_mode_weightedmean_tokens", "weightedmean"}};
  std::vector<std::pair<const char*, const char*>> chosen;
  for (const auto& flag : kFlags) {
    if (config.boolean_or(flag.first, false)) chosen.push_back(flag);
  }
  if (chosen.size() != 1) fail(ErrorKind::unsupported, "{}: {} kinds of pooling are chosen, only one at a time is supported", config.path(), chosen.size());
  return pooling_named(config, chosen.front().first, chosen.front().second);
}

void read_modules(const Checkpoint& checkpoint, const Json& modules, EmbeddingSpec& spec) {
  const std::string path = checkpoint.path + "/modules.json";
  if (!modules.is_array() || modules.empty() || modules.size() > 16) fail(ErrorKind::corrupt_file, "{}: must be a list of 1..16 modules", path);
  spec.normalize = false;
  for (size_t i = 0; i < modules.size(); ++i) {
    const JsonObject module(modules[i], fmt::format("{}[{}]", path, i));
    const std::string type = module.text("type");
    const std::string name = type.substr(type.rfind('.') + 1);
    const bool ours = type.starts_with("sentence_transformers.");
    if (ours && name == "Transformer" && i == 0) continue;
    if (ours && name == "Pooling" && i == 1) {
      const auto folder = io::find_in_directory(checkpoint.path, module.text("path"));
      const Json config = folder && std::filesystem::is_directory(*folder) ? io::read_json_in_directory(*folder, "config.json") : Json();
      if (config.is_null()) fail(ErrorKind::corrupt_file, "{}/{}/config.json: is missing, modules.json names it", checkpoint.path, module.text("path"));
      spec.pooling = pooling_of(JsonObject(config, fmt::format("{}/{}/config.json", checkpoint.path, module.text("path"))));
    } else if (ours && name == "Normalize" && i > 1) {
      spec.normalize = true;
    } else {
      fail(ErrorKind::unsupported, "{}[{}]: module \"{}\" is not supported there (Transformer, Pooling, then perhaps Normalize are)", path, i, printable(type));
    }
  }
}

// Keys of config.json that vLLM reads too.
void read_config(const JsonObject& config, EmbeddingSpec& spec) {
  spec.matryoshka = config.boolean_or("is_matryoshka", false);
  if (config.has("matryoshka_dimensions")) {
    for (const double dimension : config.numbers("matryoshka_dimensions")) {
      if (dimension < 1 || dimension > 1e9 || dimension != static_cast<double>(static_cast<int64_t>(dimension)))
        config.fail_at("matryoshka_dimensions", "items must be positive integers");
      spec.matryoshka_dimensions.push_back(static_cast<int64_t>(dimension));
    }
    spec.matryoshka = true;
  }
  std::string activation = config.text_or("sbert_ce_default_activation_function", "");
  if (config.has("sentence_transformers")) activation = config.object("sentence_transformers").text_or("activation_fn", activation);
  const std::string name = activation.substr(activation.rfind('.') + 1);
  if (!name.empty() && name != "Sigmoid" && name != "Identity") {
    fail(ErrorKind::unsupported, "{}: activation \"{}\" of a cross-encoder is not supported (Sigmoid, Identity are)", config.path(), printable(activation));
  }
  spec.sigmoid = name != "Identity";
}

Pooling gguf_pooling(const Checkpoint& checkpoint, const std::string& key, Pooling otherwise) {
  switch (checkpoint.metadata.integer_or(key, -1, -1, 1000)) {
    case -1:
    case 0: return otherwise;  // not said, and "none", which no vector comes of
    case 1: return Pooling::mean;
    case 2: return Pooling::cls;
    case 3: return Pooling::last;
    default: fail(ErrorKind::unsupported, "{}: key {}: pooling types 1 (mean), 2 (cls), 3 (last) are supported", checkpoint.path, key);
  }
}

}  // namespace

EmbeddingSpec read_embedding_spec(const Checkpoint& checkpoint, bool encoder, int64_t context) {
  EmbeddingSpec spec;
  spec.pooling = encoder ? Pooling::mean : Pooling::last;
  spec.max_tokens = context;
  if (checkpoint.container == io::Container::gguf) {
    spec.pooling = gguf_pooling(checkpoint, checkpoint.metadata.text_or("general.architecture", "") + ".pooling_type", spec.pooling);
    return spec;
  }
  read_config(JsonObject(checkpoint.config, checkpoint.path + "/config.json"), spec);
  if (const Json modules = io::read_json_in_directory(checkpoint.path, "modules.json"); !modules.is_null()) read_modules(checkpoint, modules, spec);
  for (const auto& [file, key] : {std::pair{"sentence_bert_config.json", "max_seq_length"}, {"tokenizer_config.json", "model_max_length"}}) {
    if (!encoder) break;  // a decoder takes what its context holds
    const Json json = io::read_json_in_directory(checkpoint.path, file);
    if (json.is_null()) continue;
    const JsonObject object(json, checkpoint.path + "/" + file);
    const Json* const most = object.find(key);
    if (!most) continue;
    // 1e30 is what transformers writes for "no limit".
    if (most->is_number() && most->get<double>() > static_cast<double>(kMaxContext)) continue;
    spec.max_tokens = std::min(spec.max_tokens, object.integer(key, 1, kMaxContext));
    break;
  }
  return spec;
}

}  // namespace frugal::models
