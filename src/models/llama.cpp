// Llama 1 to 3 (arXiv 2302.13971, 2307.09288, 2407.21783), SmolLM, TinyLlama; Mistral (arXiv 2310.06825), which is Llama
// with a sliding window.
#include "models/families.h"

#include "models/decoder_keys.h"

namespace frugal::models {
namespace {

constexpr int64_t kMaxWindow = int64_t{1} << 36;

nn::ModelSpec llama_from_config(const JsonObject& config) {
  nn::ModelSpec spec = read_llama(config, {.context_length = 2048});
  spec.family = "llama";
  return spec;
}

nn::ModelSpec mistral_from_config(const JsonObject& config) {
  nn::ModelSpec spec = read_decoder(config, {.kv_heads = 8, .context_length = 4096 * 32});
  spec.family = "mistral";
  set_rope(spec, rope_from_config(config, rope_context(spec)));
  // null switches the window off; only an absent key means the default of 4096.
  const bool off = config.json().contains("sliding_window") && !config.has("sliding_window");
  const int64_t window = off ? 0 : config.integer_or("sliding_window", 4096, 1, kMaxWindow);
  for (nn::BlockSpec& block : spec.blocks) block.sliding_window = window;
  return spec;
}

void mistral_to_config(const nn::ModelSpec& spec, Json& config) {
  write_decoder(spec, "hidden_act", "silu", config);
  rope_to_config(spec.blocks[0].rope, config);
  const int64_t window = spec.blocks[0].sliding_window;
  config["sliding_window"] = window > 0 ? Json(window) : Json(nullptr);
}

nn::ModelSpec from_gguf(const GgufDescription& description) {
  nn::ModelSpec spec = read_decoder(description);
  set_rope(spec, rope_from_gguf(description, rope_context(spec)));
  // llama.cpp does not read this key for the architecture, Hugging Face's definition of Mistral has the window.
  const int64_t window = description.metadata.integer_or("llama.attention.sliding_window", 0, 0, kMaxWindow);
  for (nn::BlockSpec& block : spec.blocks) block.sliding_window = window;
  spec.family = window > 0 ? "mistral" : "llama";
  return spec;
}

void to_gguf(const nn::ModelSpec& spec, GgufDescription& description) {
  write_decoder(spec, description);
  rope_to_gguf(spec.blocks[0].rope, description);
  const int64_t window = spec.blocks[0].sliding_window;
  if (window > 0) description.metadata.set("llama.attention.sliding_window", static_cast<uint64_t>(window));
}

}  // namespace

Family llama_family() {
  return {.id = "llama",
          .architecture = "LlamaForCausalLM",
          .model_types = {"llama"},
          .architectures = {"LlamaForCausalLM", "LLaMAForCausalLM"},
          .gguf_architecture = "llama",
          .from_config = llama_from_config,
          .from_gguf = from_gguf,
          .to_config = write_llama,
          .to_gguf = to_gguf,
          .gguf_interleaves_rotary_rows = true};
}

Family mistral_family() {
  return {.id = "mistral",
          .architecture = "MistralForCausalLM",
          .model_types = {"mistral"},
          .architectures = {"MistralForCausalLM"},
          .gguf_architecture = "llama",
          .from_config = mistral_from_config,
          .from_gguf = from_gguf,
          .to_config = mistral_to_config,
          .to_gguf = to_gguf,
          .gguf_interleaves_rotary_rows = true};
}

}  // namespace frugal::models
