// Qwen 3 (arXiv 2505.09388): Llama with an RMS norm on each head of q and k.
#include "models/families.h"

#include "models/decoder_keys.h"

namespace frugal::models {
namespace {

nn::ModelSpec from_config(const JsonObject& config) {
  nn::ModelSpec spec = read_decoder(config, {.head_dim = 128, .context_length = 32768});
  spec.family = "qwen3";
  set_rope(spec, rope_from_config(config, rope_context(spec)));
  read_optional_window(config, spec);
  const bool bias = config.boolean_or("attention_bias", false);
  for (nn::BlockSpec& block : spec.blocks) {
    block.qk_norm = true;
    block.qkv_bias = block.output_bias = bias;
  }
  return spec;
}

void to_config(const nn::ModelSpec& spec, Json& config) {
  write_decoder(spec, "hidden_act", "silu", config);
  rope_to_config(spec.blocks[0].rope, config);
  write_optional_window(spec, config);
  config["attention_bias"] = spec.blocks[0].qkv_bias;
}

nn::ModelSpec from_gguf(const GgufDescription& description) {
  nn::ModelSpec spec = read_decoder(description);
  spec.family = "qwen3";
  set_rope(spec, rope_from_gguf(description, rope_context(spec)));
  for (nn::BlockSpec& block : spec.blocks) block.qk_norm = true;
  return spec;
}

void to_gguf(const nn::ModelSpec& spec, GgufDescription& description) {
  write_decoder(spec, description);
  rope_to_gguf(spec.blocks[0].rope, description);
}

}  // namespace

Family qwen3_family() {
  return {.id = "qwen3",
          .architecture = "Qwen3ForCausalLM",
          .model_types = {"qwen3"},
          .architectures = {"Qwen3ForCausalLM"},
          .gguf_architecture = "qwen3",
          .from_config = from_config,
          .from_gguf = from_gguf,
          .to_config = to_config,
          .to_gguf = to_gguf};
}

}  // namespace frugal::models
