#include "models/decoder_keys.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace frugal::models {
namespace {

using nn::BlockSpec;
using nn::ModelSpec;

constexpr int64_t kMaxWidth = int64_t{1} << 30;
constexpr int64_t kMaxHeads = 65536;
constexpr int64_t kMaxLayers = 65536;
constexpr int64_t kMaxContext = int64_t{1} << 36;
constexpr double kMinEps = 1e-30, kMaxEps = 1;

int64_t integer_or_default(const JsonObject& config, std::string_view key, int64_t fallback, int64_t max) {
  return fallback > 0 ? config.integer_or(key, fallback, 1, max) : config.integer(key, 1, max);
}

BlockSpec read_block(const JsonObject& config, int64_t hidden, const ConfigDefaults& defaults) {
  BlockSpec block;
  block.hidden = hidden;
  block.heads = integer_or_default(config, "num_attention_heads", defaults.heads, kMaxHeads);
  block.kv_heads = config.integer_or("num_key_value_heads", defaults.kv_heads > 0 ? defaults.kv_heads : block.heads, 1, kMaxHeads);
  if (block.heads % block.kv_heads != 0) config.fail_at("num_key_value_heads", fmt::format("must divide num_attention_heads, {}", block.heads));
  if (!config.has("head_dim") && defaults.head_dim == 0 && hidden % block.heads != 0) {
    config.fail_at("hidden_size", fmt::format("must be a multiple of num_attention_heads, {}, where head_dim is absent", block.heads));
  }
  block.head_dim = config.integer_or("head_dim", defaults.head_dim > 0 ? defaults.head_dim : hidden / block.heads, 1, kMaxWidth);
  if (block.head_dim % 2 != 0) config.fail_at("head_dim", fmt::format("{} is odd, rotary embeddings need pairs", block.head_dim));
  block.intermediate = config.integer("intermediate_size", 1, kMaxWidth);
  block.norm_eps = config.number_or("rms_norm_eps", 1e-6, kMinEps, kMaxEps);
  block.attention_scale = 1 / std::sqrt(static_cast<double>(block.head_dim));
  block.mlp = defaults.mlp;
  const std::string activation = config.text_or(defaults.activation_key, defaults.activation);
  if (activation != defaults.activation) {
    fail(ErrorKind::unsupported, "{}.{}: \"{}\" is not supported, only \"{}\" in this family", config.path(), defaults.activation_key, printable(activation),
         defaults.activation);
  }
  return block;
}

void set_blocks(ModelSpec& spec, const BlockSpec& block, int64_t count) {
  spec.blocks.assign(static_cast<size_t>(count), block);
  for (size_t i = 0; i < spec.blocks.size(); ++i) spec.blocks[i].state_slot = static_cast<int>(i);
}

// A number for all layers, or an array with one for each.
int64_t layer_value(const Metadata& metadata, const std::string& key, size_t layer, int64_t min, int64_t max) {
  const MetadataValue* value = metadata.find(key);
  if (!value) metadata.fail_at(key, "must be there");
  if (!std::holds_alternative<std::vector<int64_t>>(*value) && !std::holds_alternative<std::vector<uint64_t>>(*value)) return metadata.integer(key, min, max);
  const std::vector<int64_t> items = metadata.integers(key);
  if (layer >= items.size()) metadata.fail_at(key, fmt::format("has {} items, none for layer {}", items.size(), layer));
  if (items[layer] < min || items[layer] > max) metadata.fail_at(key, fmt::format("item {} must be in {}..{}", layer, min, max));
  return items[layer];
}

BlockSpec read_block(const GgufDescription& description, const std::string& prefix, int64_t hidden, size_t layer) {
  const Metadata& metadata = description.metadata;
  BlockSpec block;
  block.hidden = hidden;
  block.heads = layer_value(metadata, prefix + "attention.head_count", layer, 1, kMaxHeads);
  block.kv_heads =
      metadata.has(prefix + "attention.head_count_kv") ? layer_value(metadata, prefix + "attention.head_count_kv", layer, 1, kMaxHeads) : block.heads;
  if (block.heads % block.kv_heads != 0) {
    metadata.fail_at(prefix + "attention.head_count_kv", fmt::format("layer {}: {} must divide head_count, {}", layer, block.kv_heads, block.heads));
  }
  const bool has_length = metadata.has(prefix + "attention.key_length");
  if (!has_length && hidden % block.heads != 0) {
    metadata.fail_at(prefix + "embedding_length", fmt::format("must be a multiple of head_count, {}, where key_length is absent", block.heads));
  }
  block.head_dim = metadata.integer_or(prefix + "attention.key_length", hidden / block.heads, 1, kMaxWidth);
  if (block.head_dim % 2 != 0) metadata.fail_at(prefix + "attention.key_length", fmt::format("{} is odd, rotary embeddings need pairs", block.head_dim));
  if (metadata.integer_or(prefix + "attention.value_length", block.head_dim, 1, kMaxWidth) != block.head_dim) {
    fail(ErrorKind::unsupported, "{}: key {}attention.value_length: values of another length than keys are not supported", metadata.source(), prefix);
  }
  block.intermediate = layer_value(metadata, prefix + "feed_forward_length", layer, 1, kMaxWidth);
  block.norm_eps = tidy_float(metadata.number(prefix + "attention.layer_norm_rms_epsilon"));
  if (!(block.norm_eps >= kMinEps && block.norm_eps <= kMaxEps)) {
    metadata.fail_at(prefix + "attention.layer_norm_rms_epsilon", fmt::format("must be in {}..{}", kMinEps, kMaxEps));
  }
  block.attention_scale = 1 / std::sqrt(static_cast<double>(block.head_dim));
  block.qkv_bias = description.qkv_bias;
  block.output_bias = description.output_bias;
  block.mlp_bias = description.mlp_bias;
  block.state_slot = static_cast<int>(layer);
  return block;
}

}  // namespace

ModelSpec read_decoder(const JsonObject& config, const ConfigDefaults& defaults) {
  ModelSpec spec;
  spec.vocab = integer_or_default(config, "vocab_size", defaults.vocab, kMaxWidth);
  spec.hidden = config.integer("hidden_size", 1, kMaxWidth);
  spec.context_length = integer_or_default(config, "max_position_embeddings", defaults.context_length, kMaxContext);
  spec.tied_embeddings = config.boolean_or("tie_word_embeddings", defaults.tied_embeddings);
  const BlockSpec block = read_block(config, spec.hidden, defaults);
  spec.final_norm_eps = block.norm_eps;
  set_blocks(spec, block, config.integer("num_hidden_layers", 1, kMaxLayers));
  return spec;
}

RopeContext rope_context(const ModelSpec& spec, double default_theta) {
  return {.head_dim = spec.blocks.at(0).head_dim, .context_length = spec.context_length, .default_theta = default_theta};
}

void set_rope(ModelSpec& spec, const nn::RopeSpec& rope) {
  for (BlockSpec& block : spec.blocks) block.rope = rope;
}

std::vector<bool> windowed_layers(const JsonObject& config, size_t layers) {
  if (!config.has("layer_types")) return {};
  const std::vector<std::string> types = config.texts("layer_types");
  if (types.size() != layers) config.fail_at("layer_types", fmt::format("must have one item for each of {} layers", layers));
  std::vector<bool> windowed;
  for (const std::string& type : types) {
    if (type != "sliding_attention" && type != "full_attention") {
      fail(ErrorKind::unsupported, "{}.layer_types: \"{}\" is not supported (full_attention, sliding_attention are)", config.path(), printable(type));
    }
    windowed.push_back(type == "sliding_attention");
  }
  return windowed;
}

void read_optional_window(const JsonObject& config, ModelSpec& spec) {
  const int64_t window = config.integer_or("sliding_window", 4096, 1, kMaxContext);
  const int64_t first = config.integer_or("max_window_layers", 28, 0, kMaxLayers);
  std::vector<bool> windowed = windowed_layers(config, spec.blocks.size());
  if (!config.boolean_or("use_sliding_window", false)) return;
  for (size_t i = 0; i < spec.blocks.size(); ++i) {
    const bool sliding = windowed.empty() ? static_cast<int64_t>(i) >= first : windowed[i];
    if (sliding) spec.blocks[i].sliding_window = window;
  }
}

void write_optional_window(const ModelSpec& spec, Json& config) {
  Json types = Json::array();
  int64_t window = 0;
  for (const BlockSpec& block : spec.blocks) {
    types.push_back(block.sliding_window > 0 ? "sliding_attention" : "full_attention");
    window = std::max(window, block.sliding_window);
  }
  config["use_sliding_window"] = window > 0;
  if (window == 0) return;
  config["sliding_window"] = window;
  config["max_window_layers"] = 0;
  config["layer_types"] = std::move(types);
}

void require_equal_dimensions(const ModelSpec& spec, std::string_view container) {
  if (spec.blocks.empty()) fail(ErrorKind::unsupported, "{} cannot say that a model has no blocks", container);
  const BlockSpec& first = spec.blocks[0];
  for (size_t i = 0; i < spec.blocks.size(); ++i) {
    const BlockSpec& block = spec.blocks[i];
    if (block.heads == 0 || block.intermediate == 0) fail(ErrorKind::unsupported, "{} cannot say that block {} lacks its attention or MLP", container, i);
    if (block.heads != first.heads || block.kv_heads != first.kv_heads || block.head_dim != first.head_dim || block.intermediate != first.intermediate) {
      fail(ErrorKind::unsupported,
           "{} has one set of dimensions for all blocks, but block {} has {} heads, {} key-value heads of {}, and {} MLP channels; block 0 has {}, {} of {}, "
           "and {}",
           container, i, block.heads, block.kv_heads, block.head_dim, block.intermediate, first.heads, first.kv_heads, first.head_dim, first.intermediate);
    }
  }
}

void write_decoder(const ModelSpec& spec, const char* activation_key, const char* activation, Json& config) {
  require_equal_dimensions(spec, "config.json");
  const BlockSpec& block = spec.blocks[0];
  config["vocab_size"] = spec.vocab;
  config["hidden_size"] = spec.hidden;
  config["intermediate_size"] = block.intermediate;
  config["num_hidden_layers"] = spec.blocks.size();
  config["num_attention_heads"] = block.heads;
  config["num_key_value_heads"] = block.kv_heads;
  config["head_dim"] = block.head_dim;
  config["max_position_embeddings"] = spec.context_length;
  config["rms_norm_eps"] = block.norm_eps;
  config[activation_key] = activation;
  config["tie_word_embeddings"] = spec.tied_embeddings;
}

ModelSpec read_llama(const JsonObject& config, const ConfigDefaults& defaults) {
  ModelSpec spec = read_decoder(config, defaults);
  set_rope(spec, rope_from_config(config, rope_context(spec)));
  const bool attention_bias = config.boolean_or("attention_bias", false), mlp_bias = config.boolean_or("mlp_bias", false);
  for (nn::BlockSpec& block : spec.blocks) {
    block.qkv_bias = block.output_bias = attention_bias;
    block.mlp_bias = mlp_bias;
  }
  return spec;
}

void write_llama(const ModelSpec& spec, Json& config) {
  write_decoder(spec, "hidden_act", "silu", config);
  rope_to_config(spec.blocks[0].rope, config);
  config["attention_bias"] = spec.blocks[0].qkv_bias;
  config["mlp_bias"] = spec.blocks[0].mlp_bias;
}

ModelSpec read_decoder(const GgufDescription& description) {
  const Metadata& metadata = description.metadata;
  const std::string prefix = metadata.text("general.architecture") + ".";
  if (metadata.integer_or(prefix + "expert_count", 0, 0, kMaxHeads) > 0) {
    fail(ErrorKind::unsupported, "{}: key {}expert_count: mixtures of experts are not supported", metadata.source(), prefix);
  }
  ModelSpec spec;
  spec.vocab = description.vocab;
  spec.hidden = metadata.integer(prefix + "embedding_length", 1, kMaxWidth);
  spec.context_length = metadata.integer(prefix + "context_length", 1, kMaxContext);
  spec.tied_embeddings = description.tied_embeddings;
  const int64_t layers = metadata.integer(prefix + "block_count", 1, kMaxLayers);
  for (int64_t i = 0; i < layers; ++i) spec.blocks.push_back(read_block(description, prefix, spec.hidden, static_cast<size_t>(i)));
  spec.final_norm_eps = spec.blocks[0].norm_eps;
  return spec;
}

void write_decoder(const ModelSpec& spec, GgufDescription& description) {
  require_equal_dimensions(spec, "GGUF");
  Metadata& metadata = description.metadata;
  const std::string prefix = metadata.text("general.architecture") + ".";
  const BlockSpec& block = spec.blocks[0];
  const auto set = [&](const char* key, int64_t value) { metadata.set(prefix + key, static_cast<uint64_t>(value)); };
  set("context_length", spec.context_length);
  set("embedding_length", spec.hidden);
  set("block_count", static_cast<int64_t>(spec.blocks.size()));
  set("feed_forward_length", block.intermediate);
  set("attention.head_count", block.heads);
  set("attention.head_count_kv", block.kv_heads);
  set("attention.key_length", block.head_dim);
  set("attention.value_length", block.head_dim);
  set("vocab_size", spec.vocab);
  metadata.set(prefix + "attention.layer_norm_rms_epsilon", block.norm_eps);
  description.vocab = spec.vocab;
  description.tied_embeddings = spec.tied_embeddings;
  description.qkv_bias = block.qkv_bias;
  description.output_bias = block.output_bias;
  description.mlp_bias = block.mlp_bias;
}

}  // namespace frugal::models
