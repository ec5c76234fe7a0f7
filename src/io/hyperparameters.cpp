#include "io/hyperparameters.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "base/error.h"
#include "io/checkpoint.h"

namespace frugal::io {
namespace {

constexpr int64_t kMaxLayers = 65536;
constexpr int64_t kMaxWidth = int64_t{1} << 30;
constexpr int64_t kMaxVocabulary = int64_t{1} << 30;
constexpr int64_t kMaxContext = int64_t{1} << 36;
constexpr size_t kMaxTemplateBytes = size_t{4} << 20;

// ---- GGUF -----------------------------------------------------------------------------------------------------------

class GgufNumbers {
 public:
  explicit GgufNumbers(const Checkpoint& checkpoint)
      : metadata_(checkpoint.metadata), tensors_(checkpoint.tensors), prefix_(metadata_.text_or("general.architecture", "") + ".") {
    for (const auto& [key, value] : metadata_.values()) {
      if (key.starts_with(prefix_ + "ssm.") || key.starts_with(prefix_ + "wkv.")) recurrent_ = true;
    }
  }

  void check() const {
    check_sizes();
    check_heads();
    check_floats();
    check_vocabulary();
  }

 private:
  std::string key(std::string_view name) const { return prefix_ + std::string(name); }
  int64_t in_range(std::string_view name, int64_t fallback, int64_t min, int64_t max) const { return metadata_.integer_or(key(name), fallback, min, max); }

  // A number for all layers, or an array with one for each.
  std::vector<int64_t> per_layer(std::string_view name, int64_t min, int64_t max, int64_t layers) const {
    const MetadataValue* value = metadata_.find(key(name));
    if (!value) return {};
    if (std::holds_alternative<int64_t>(*value) || std::holds_alternative<uint64_t>(*value)) return {metadata_.integer(key(name), min, max)};
    std::vector<int64_t> values = metadata_.integers(key(name));
    if (layers > 0 && static_cast<int64_t>(values.size()) < layers) {
      metadata_.fail_at(key(name), fmt::format("has {} items, must have one for each of {} layers", values.size(), layers));
    }
    for (const int64_t item : values) {
      if (item < min || item > max) metadata_.fail_at(key(name), fmt::format("items must be in {}..{}", min, max));
    }
    return values;
  }

  void check_sizes() const {
    const int64_t layers = in_range("block_count", 0, 1, kMaxLayers);
    // Files with a vocabulary alone have the keys of the model but no tensors.
    if (!tensors_.empty() && layers > static_cast<int64_t>(tensors_.size())) {
      metadata_.fail_at(key("block_count"), fmt::format("there are only {} tensors", tensors_.size()));
    }
    in_range("embedding_length", 0, 1, kMaxWidth);
    in_range("context_length", 0, 1, kMaxContext);
    in_range("vocab_size", 0, 1, kMaxVocabulary);
    per_layer("feed_forward_length", 0, kMaxWidth, layers);
    const int64_t experts = in_range("expert_count", 0, 0, 65536);
    const int64_t used = in_range("expert_used_count", 0, 0, 65536);
    if (used > experts) metadata_.fail_at(key("expert_used_count"), fmt::format("must be at most expert_count, {}", experts));
  }

  void check_heads() const {
    const int64_t layers = in_range("block_count", 0, 1, kMaxLayers);
    const int64_t least = recurrent_ ? 0 : 1;
    const std::vector<int64_t> heads = per_layer("attention.head_count", 0, 65536, layers);
    const std::vector<int64_t> kv_heads = per_layer("attention.head_count_kv", 0, 65536, layers);
    if (heads.size() == 1 && heads[0] < least) metadata_.fail_at(key("attention.head_count"), "must be at least 1");
    if (kv_heads.size() == 1 && kv_heads[0] < least) metadata_.fail_at(key("attention.head_count_kv"), "must be at least 1");
    const size_t count = std::max(heads.size(), kv_heads.size());
    for (size_t i = 0; i < count && !heads.empty() && !kv_heads.empty(); ++i) {
      const int64_t all = heads[std::min(i, heads.size() - 1)], shared = kv_heads[std::min(i, kv_heads.size() - 1)];
      if (shared != 0 && (shared > all || all % shared != 0)) {
        metadata_.fail_at(key("attention.head_count_kv"), fmt::format("layer {}: {} must divide head_count, {}", i, shared, all));
      }
    }
    in_range("attention.key_length", 0, 1, 65536);
    in_range("attention.value_length", 0, 1, 65536);
    in_range("rope.dimension_count", 0, 0, 65536);
    const int64_t width = in_range("embedding_length", 0, 1, kMaxWidth);
    if (heads.size() == 1 && heads[0] > 0 && width % heads[0] != 0 && !metadata_.has(key("attention.key_length"))) {
      metadata_.fail_at(key("embedding_length"), fmt::format("must be a multiple of head_count, {}, where key_length is absent", heads[0]));
    }
  }

  void check_floats() const {
    const auto positive = [&](std::string_view name, double min, double max) {
      if (!metadata_.has(key(name))) return;
      const double value = metadata_.number(key(name));
      if (!(value >= min && value <= max)) metadata_.fail_at(key(name), fmt::format("must be in {}..{}", min, max));
    };
    positive("rope.freq_base", 1e-6, 1e18);
    positive("rope.scaling.factor", 0, 1e6);  // llama.cpp writes 0 for "none"
    positive("attention.layer_norm_rms_epsilon", 1e-30, 1);
    positive("attention.layer_norm_epsilon", 1e-30, 1);
  }

  void check_vocabulary() const {
    const MetadataValue* tokens = metadata_.find("tokenizer.ggml.tokens");
    for (const auto& [name, value] : metadata_.values()) {
      const auto* text = std::get_if<std::string>(&value);
      if (text && name.starts_with("tokenizer.chat_template") && text->size() > kMaxTemplateBytes) {
        fail(ErrorKind::corrupt_file, "{}: key {}: {} bytes, at most {} are allowed", metadata_.source(), printable(name), text->size(), kMaxTemplateBytes);
      }
    }
    if (!tokens) return;
    const auto count = static_cast<int64_t>(metadata_.texts("tokenizer.ggml.tokens").size());
    const auto same_length = [&](const char* name, size_t size) {
      if (static_cast<int64_t>(size) != count) metadata_.fail_at(name, fmt::format("must have {} items, one for each token", count));
    };
    if (metadata_.has("tokenizer.ggml.scores")) same_length("tokenizer.ggml.scores", metadata_.numbers("tokenizer.ggml.scores").size());
    if (metadata_.has("tokenizer.ggml.token_type")) same_length("tokenizer.ggml.token_type", metadata_.integers("tokenizer.ggml.token_type").size());
    for (const char* name : {"bos", "eos", "eot", "eom", "unknown", "padding", "seperator", "cls", "mask"}) {
      const std::string full = fmt::format("tokenizer.ggml.{}_token_id", name);
      // Older converters write -1 as u32 for a token that the model does not have; every model has bos and eos.
      const bool may_be_unset = std::string_view(name) != "bos" && std::string_view(name) != "eos";
      if (may_be_unset && metadata_.integer_or(full, 0, INT64_MIN, INT64_MAX) == UINT32_MAX) continue;
      metadata_.integer_or(full, 0, 0, count - 1);
    }
    const auto embedding = tensors_.find("token_embd.weight");
    if (embedding == tensors_.end()) return;
    const auto& shape = embedding->second.shape;
    if (shape.size() != 2 || shape[0] != count) {
      fail(ErrorKind::corrupt_file, "{}: tensor token_embd.weight must be a matrix with one row for each of {} tokens, is [{}]", metadata_.source(), count,
           fmt::join(shape, ", "));
    }
  }

  const Metadata& metadata_;
  const std::map<std::string, TensorView, std::less<>>& tensors_;
  std::string prefix_;
  bool recurrent_ = false;
};

// ---- config.json ----------------------------------------------------------------------------------------------------

void check_integers(const JsonObject& config) {
  const auto check = [&](std::initializer_list<const char*> keys, int64_t min, int64_t max) {
    for (const char* key : keys) config.integer_or(key, min, min, max);
  };
  check({"hidden_size", "n_embd", "d_model", "moe_intermediate_size"}, 1, kMaxWidth);
  check({"num_hidden_layers", "n_layer", "n_layers"}, 1, kMaxLayers);
  check({"num_attention_heads", "n_head", "num_key_value_heads", "head_dim"}, 1, 65536);
  check({"vocab_size"}, 1, kMaxVocabulary);
  check({"max_position_embeddings", "n_positions", "original_max_position_embeddings"}, 1, kMaxContext);
  check({"num_experts", "num_local_experts", "num_experts_per_tok", "n_routed_experts"}, 0, 65536);
  if (const Json* width = config.find("intermediate_size"); width && !width->is_array()) config.integer("intermediate_size", 1, kMaxWidth);
  for (const char* key : {"rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_eps"}) config.number_or(key, 1e-5, 1e-30, 1);
  config.number_or("rope_theta", 1, 1e-6, 1e18);
  config.boolean_or("tie_word_embeddings", false);
}

void check_divisors(const JsonObject& config) {
  const int64_t heads = config.integer_or("num_attention_heads", 0, 1, 65536);
  const int64_t kv_heads = config.integer_or("num_key_value_heads", 0, 1, 65536);
  const int64_t width = config.integer_or("hidden_size", 0, 1, kMaxWidth);
  if (heads > 0 && kv_heads > 0 && heads % kv_heads != 0) {
    config.fail_at("num_key_value_heads", fmt::format("must divide num_attention_heads, {}", heads));
  }
  if (heads > 0 && width % heads != 0 && !config.has("head_dim")) {
    config.fail_at("hidden_size", fmt::format("must be a multiple of num_attention_heads, {}, where head_dim is absent", heads));
  }
  const int64_t experts = config.integer_or("num_local_experts", config.integer_or("num_experts", 0, 0, 65536), 0, 65536);
  const int64_t used = config.integer_or("num_experts_per_tok", 0, 0, 65536);
  if (experts > 0 && used > experts) config.fail_at("num_experts_per_tok", fmt::format("must be at most the number of experts, {}", experts));
}

void check_rope(const JsonObject& rope) {
  const std::string type = rope.text_or("rope_type", rope.text_or("type", "default"));
  constexpr std::string_view kTypes[] = {"default", "linear", "dynamic", "ntk", "yarn", "longrope", "su", "llama3", "mrope", "proportional"};
  if (std::find(std::begin(kTypes), std::end(kTypes), type) == std::end(kTypes)) {
    fail(ErrorKind::unsupported, "{}: rope type \"{}\" is unknown (known: {})", rope.path(), printable(type), fmt::join(kTypes, ", "));
  }
  for (const char* key : {"factor", "low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow"}) rope.number_or(key, 1, 1e-6, 1e6);
  rope.number_or("rope_theta", 1, 1e-6, 1e18);
  rope.number_or("attention_factor", 1, 0, 1e6);
  rope.integer_or("original_max_position_embeddings", 1, 1, kMaxContext);
  for (const char* key : {"short_factor", "long_factor"}) {
    if (!rope.has(key)) continue;
    const std::vector<double> factors = rope.numbers(key);
    if (factors.empty() || factors.size() > 65536) rope.fail_at(key, "must have 1..65536 items");
    for (const double factor : factors) {
      if (!(factor > 0 && factor < 1e9)) rope.fail_at(key, "items must be greater than 0");
    }
  }
}

void check_tokens(const JsonObject& config) {
  const Json* eos = config.find("eos_token_id");
  if (!eos) return;
  const int64_t last = config.integer_or("vocab_size", kMaxVocabulary, 1, kMaxVocabulary) - 1;
  if (!eos->is_array()) {
    config.integer("eos_token_id", 0, last);
    return;
  }
  if (eos->size() > 256) fail(ErrorKind::corrupt_file, "{}.eos_token_id: {} items, at most 256 are allowed", config.path(), eos->size());
  for (const Json& id : *eos) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() > last)
      config.fail_at("eos_token_id", fmt::format("items must be integers in 0..{}", last));
  }
}

void check_dtype(const JsonObject& config) {
  constexpr std::string_view kKnown[] = {"float32", "float16", "bfloat16", "float64", "float8_e4m3fn", "float8_e5m2", "auto"};
  for (const char* key : {"dtype", "torch_dtype"}) {
    const std::string dtype = config.text_or(key, "auto");
    if (std::find(std::begin(kKnown), std::end(kKnown), dtype) == std::end(kKnown)) {
      fail(ErrorKind::unsupported, "{}.{}: \"{}\" is unknown (known: {})", config.path(), key, printable(dtype), fmt::join(kKnown, ", "));
    }
  }
}

void check_against_tensors(const JsonObject& config, const Checkpoint& checkpoint) {
  const auto tensors = static_cast<int64_t>(checkpoint.tensors.size());
  if (config.integer_or("num_hidden_layers", 1, 1, kMaxLayers) > tensors) {
    config.fail_at("num_hidden_layers", fmt::format("there are only {} tensors", tensors));
  }
  const TensorView* embedding = checkpoint.find("model.embed_tokens.weight");
  if (!embedding) return;
  const int64_t vocabulary = config.integer_or("vocab_size", 0, 1, kMaxVocabulary);
  if (embedding->shape.size() != 2 || (vocabulary != 0 && embedding->shape[0] != vocabulary)) {
    config.fail_at("vocab_size", fmt::format("must be the number of rows of model.embed_tokens.weight, [{}]", fmt::join(embedding->shape, ", ")));
  }
  const bool untied = config.has("tie_word_embeddings") && !config.boolean_or("tie_word_embeddings", true);
  const auto head = checkpoint.tensors.lower_bound("lm_head.");
  const bool has_head = head != checkpoint.tensors.end() && head->first.starts_with("lm_head.");
  const std::vector<std::string> classes = config.has("architectures") ? config.texts("architectures") : std::vector<std::string>{};
  if (untied && !has_head && !classes.empty() && classes[0].ends_with("ForCausalLM")) {
    config.fail_at("tie_word_embeddings", "the file has no lm_head.weight");
  }
}

void check_config(const JsonObject& config) {
  check_integers(config);
  check_divisors(config);
  check_tokens(config);
  check_dtype(config);
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (!config.has(key)) continue;
    const JsonObject rope = config.object(key);
    // Newer configs have one set of parameters for each kind of layer.
    bool nested = false;
    for (const auto& [name, value] : rope.json().items()) {
      if (!value.is_object()) continue;
      nested = true;
      check_rope(JsonObject(value, rope.path() + "." + name));
    }
    if (!nested) check_rope(rope);
  }
}

}  // namespace

void check_hyperparameters(const Checkpoint& checkpoint) {
  if (checkpoint.container == Container::gguf) {
    GgufNumbers(checkpoint).check();
    return;
  }
  const JsonObject config(checkpoint.config, checkpoint.path + "/config.json");
  check_config(config);
  if (config.has("text_config")) check_config(config.object("text_config"));
  check_against_tensors(config, checkpoint);
}

}  // namespace frugal::io
