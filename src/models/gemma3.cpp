// Gemma 3, the text model (arXiv 2503.19786): norms before and after attention and MLP, norms on q and k, five layers with
// a sliding window and their own rope for one that sees everything, embeddings scaled by sqrt(hidden).
#include <cmath>

#include "base/error.h"
#include "models/decoder_keys.h"
#include "models/families.h"

namespace frugal::models {
namespace {

using nn::BlockSpec;
using nn::ModelSpec;

constexpr const char* kActivationKey = "hidden_activation";
constexpr const char* kActivation = "gelu_pytorch_tanh";
constexpr int64_t kMaxContext = int64_t{1} << 36;
constexpr double kGlobalTheta = 1e6, kLocalTheta = 1e4;
constexpr int64_t kDefaultPeriod = 6;  // every sixth layer sees everything
constexpr size_t kLayersOf27B = 62;    // how llama.cpp knows the one size whose attention scale differs

// The defaults of transformers' Gemma3TextConfig: the files of the multimodal sizes leave these out.
constexpr ConfigDefaults kDefaults = {.vocab = 262208,
                                      .heads = 8,
                                      .kv_heads = 4,
                                      .head_dim = 256,
                                      .context_length = 131072,
                                      .tied_embeddings = true,
                                      .activation_key = kActivationKey,
                                      .activation = kActivation,
                                      .mlp = nn::MlpKind::gated_gelu_tanh};

struct Ropes {
  nn::RopeSpec global, local;
};

// What all Gemma 3 models share, whatever file they come from.
void finish(ModelSpec& spec, const Ropes& ropes, nn::NormKind norm) {
  spec.family = "gemma3";
  spec.embedding_scale = static_cast<float>(std::sqrt(static_cast<double>(spec.hidden)));  // a float32 buffer in transformers
  spec.final_norm = norm;
  for (BlockSpec& block : spec.blocks) {
    block.norm = norm;
    block.mlp = nn::MlpKind::gated_gelu_tanh;
    block.qk_norm = block.post_norms = true;
    block.rope = block.sliding_window > 0 ? ropes.local : ropes.global;
  }
}

void set_windows(ModelSpec& spec, int64_t window, int64_t period) {
  for (size_t i = 0; i < spec.blocks.size(); ++i) {
    if ((static_cast<int64_t>(i) + 1) % period != 0) spec.blocks[i].sliding_window = window;
  }
}

Ropes read_ropes(const JsonObject& config, const ModelSpec& spec) {
  RopeContext global = rope_context(spec, config.number_or("rope_theta", kGlobalTheta, 1, 1e18));
  const RopeContext local = rope_context(spec, config.number_or("rope_local_base_freq", kLocalTheta, 1, 1e18));
  Ropes ropes = {plain_rope(global.default_theta, global.head_dim), plain_rope(local.default_theta, local.head_dim)};
  // transformers 5 has an entry for each kind of layer in rope_parameters; rope_scaling is about the global layers and is merged in.
  Json full = Json::object();
  if (config.has("rope_parameters")) {
    const JsonObject parameters = config.object("rope_parameters");
    if (parameters.has("full_attention")) full = parameters.object("full_attention").json();
    if (parameters.has("sliding_attention")) ropes.local = rope_from_parameters(parameters.object("sliding_attention"), local);
  }
  if (config.has("rope_scaling")) full.update(config.object("rope_scaling").json());
  if (!full.empty()) ropes.global = rope_from_parameters(JsonObject(full, config.path() + ".rope_parameters.full_attention"), global);
  return ropes;
}

ModelSpec from_config(const JsonObject& whole) {
  const bool nested = whole.has("text_config");  // the multimodal sizes
  const JsonObject config = nested ? whole.object("text_config") : whole;
  ModelSpec spec = read_decoder(config, kDefaults);
  if (nested && whole.has("tie_word_embeddings")) spec.tied_embeddings = whole.boolean_or("tie_word_embeddings", true);
  if (config.has("attn_logit_softcapping")) fail(ErrorKind::unsupported, "{}.attn_logit_softcapping: is not supported", config.path());
  if (config.boolean_or("use_bidirectional_attention", false)) fail(ErrorKind::unsupported, "{}.use_bidirectional_attention: is not supported", config.path());
  spec.logit_softcap = config.number_or("final_logit_softcapping", 0, 1e-3, 1e6);

  const int64_t window = config.integer_or("sliding_window", 4096, 1, kMaxContext);
  const std::vector<bool> windowed = windowed_layers(config, spec.blocks.size());
  if (windowed.empty()) set_windows(spec, window, config.integer_or("sliding_window_pattern", kDefaultPeriod, 1, 65536));
  const bool bias = config.boolean_or("attention_bias", false);
  const double scale = 1 / std::sqrt(config.number_or("query_pre_attn_scalar", 256, 1e-3, 1e9));
  for (size_t i = 0; i < spec.blocks.size(); ++i) {
    BlockSpec& block = spec.blocks[i];
    if (!windowed.empty() && windowed[i]) block.sliding_window = window;
    block.qkv_bias = block.output_bias = bias;
    block.attention_scale = scale;
  }
  finish(spec, read_ropes(config, spec), nn::NormKind::rms_plus_one);
  return spec;
}

const BlockSpec* find_block(const ModelSpec& spec, bool windowed) {
  for (const BlockSpec& block : spec.blocks) {
    if ((block.sliding_window > 0) == windowed) return &block;
  }
  return nullptr;
}

void to_config(const ModelSpec& spec, Json& config) {
  write_decoder(spec, kActivationKey, kActivation, config);
  const BlockSpec *global = find_block(spec, false), *local = find_block(spec, true);
  if (global) rope_to_config(global->rope, config);
  if (local && local->rope.scaling != nn::RopeScaling::none) fail(ErrorKind::unsupported, "config.json cannot say that windowed layers have a rope scaling");
  if (local) config["rope_local_base_freq"] = local->rope.theta;
  config["sliding_window"] = local ? local->sliding_window : 4096;
  Json types = Json::array();
  for (const BlockSpec& block : spec.blocks) types.push_back(block.sliding_window > 0 ? "sliding_attention" : "full_attention");
  config["layer_types"] = std::move(types);
  const double scalar = 1 / (spec.blocks[0].attention_scale * spec.blocks[0].attention_scale);
  config["query_pre_attn_scalar"] = static_cast<int64_t>(std::llround(scalar));  // transformers takes an integer
  config["attention_bias"] = spec.blocks[0].qkv_bias;
  config["final_logit_softcapping"] = spec.logit_softcap > 0 ? Json(spec.logit_softcap) : Json(nullptr);
}

// GGUF has no word for the attention scale: readers know it from the size.
double gguf_attention_scale(const ModelSpec& spec) {
  const BlockSpec& block = spec.blocks[0];
  const auto features = static_cast<double>(spec.blocks.size() == kLayersOf27B ? spec.hidden / block.heads : block.head_dim);
  return 1 / std::sqrt(features);
}

ModelSpec from_gguf(const GgufDescription& description) {
  const Metadata& metadata = description.metadata;
  ModelSpec spec = read_decoder(description);
  spec.logit_softcap = tidy_float(metadata.number_or("gemma3.final_logit_softcapping", 0));
  if (!(spec.logit_softcap >= 0 && spec.logit_softcap <= 1e6)) metadata.fail_at("gemma3.final_logit_softcapping", "must be in 0..1e6");
  const int64_t window = metadata.integer_or("gemma3.attention.sliding_window", 4096, 1, kMaxContext);
  set_windows(spec, window, metadata.integer_or("gemma3.attention.sliding_window_pattern", kDefaultPeriod, 1, 65536));
  const double scale = gguf_attention_scale(spec);
  for (BlockSpec& block : spec.blocks) block.attention_scale = scale;
  const double local_theta = tidy_float(metadata.number_or("gemma3.rope.freq_base_swa", kLocalTheta));
  if (!(local_theta >= 1 && local_theta <= 1e18)) metadata.fail_at("gemma3.rope.freq_base_swa", "must be in 1..1e18");
  const RopeContext context = rope_context(spec, kGlobalTheta);
  finish(spec, {rope_from_gguf(description, context), plain_rope(local_theta, context.head_dim)}, nn::NormKind::rms);
  return spec;
}

void to_gguf(const ModelSpec& spec, GgufDescription& description) {
  write_decoder(spec, description);
  const BlockSpec *global = find_block(spec, false), *local = find_block(spec, true);
  rope_to_gguf(global ? global->rope : plain_rope(kGlobalTheta, spec.blocks[0].head_dim), description);
  Metadata& metadata = description.metadata;
  if (local && local->rope.scaling != nn::RopeScaling::none) fail(ErrorKind::unsupported, "GGUF cannot say that windowed layers have a rope scaling");
  if (local && local->rope.theta != kLocalTheta) metadata.set("gemma3.rope.freq_base_swa", local->rope.theta);
  metadata.set("gemma3.attention.sliding_window", static_cast<uint64_t>(local ? local->sliding_window : 4096));
  // The period is the place of the first layer that sees everything; whether the rest agrees is for the reader's check.
  const auto period = static_cast<uint64_t>(global ? global - spec.blocks.data() + 1 : static_cast<int64_t>(spec.blocks.size()) + 1);
  if (period != kDefaultPeriod) metadata.set("gemma3.attention.sliding_window_pattern", period);
  if (spec.logit_softcap > 0) metadata.set("gemma3.final_logit_softcapping", spec.logit_softcap);
}

}  // namespace

Family gemma3_family() {
  return {.id = "gemma3",
          .architecture = "Gemma3ForCausalLM",
          .model_types = {"gemma3_text", "gemma3"},
          .architectures = {"Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"},
          .gguf_architecture = "gemma3",
          .from_config = from_config,
          .from_gguf = from_gguf,
          .to_config = to_config,
          .to_gguf = to_gguf,
          .norm_less_one = true};
}

}  // namespace frugal::models
