// Qwen 2 and 2.5 (arXiv 2407.10671, 2412.15115): Llama with biases on q, k and v.
#include "models/families.h"

#include "models/decoder_keys.h"

namespace frugal::models {
namespace {

nn::ModelSpec from_config(const JsonObject& config) {
  nn::ModelSpec spec = read_decoder(config, {.context_length = 32768});
  spec.family = "qwen2";
  set_rope(spec, rope_from_config(config, rope_context(spec)));
  read_optional_window(config, spec);
  for (nn::BlockSpec& block : spec.blocks) block.qkv_bias = true;
  return spec;
}

void to_config(const nn::ModelSpec& spec, Json& config) {
  write_decoder(spec, "hidden_act", "silu", config);
  rope_to_config(spec.blocks[0].rope, config);
  write_optional_window(spec, config);
}

nn::ModelSpec from_gguf(const GgufDescription& description) {
  nn::ModelSpec spec = read_decoder(description);
  spec.family = "qwen2";
  set_rope(spec, rope_from_gguf(description, rope_context(spec)));
  return spec;
}

void to_gguf(const nn::ModelSpec& spec, GgufDescription& description) {
  write_decoder(spec, description);
  rope_to_gguf(spec.blocks[0].rope, description);
}

}  // namespace

Family qwen2_family() {
  return {.id = "qwen2",
          .architecture = "Qwen2ForCausalLM",
          .model_types = {"qwen2"},
          .architectures = {"Qwen2ForCausalLM"},
          .gguf_architecture = "qwen2",
          .from_config = from_config,
          .from_gguf = from_gguf,
          .to_config = to_config,
          .to_gguf = to_gguf};
}

}  // namespace frugal::models
