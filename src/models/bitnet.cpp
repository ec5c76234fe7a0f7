// BitNet b1.58 (arXiv 2402.17764): Llama with norms before the output projections of attention and MLP (SubLN). That weights are ternary and
// inputs have 8 bits is a property of the stored matrices. Of the activations the paper has SwiGLU; squared ReLU (the 2B4T model) is not there.
#include "base/error.h"
#include "models/families.h"

#include "models/decoder_keys.h"

namespace frugal::models {
namespace {

void add_sub_norms(nn::ModelSpec& spec) {
  spec.family = "bitnet";
  for (nn::BlockSpec& block : spec.blocks) block.sub_norms = true;
}

nn::ModelSpec from_config(const JsonObject& config) {
  if (!config.has("hidden_act")) fail(ErrorKind::unsupported, "{}.hidden_act: is absent, which means \"relu2\"; only \"silu\" is supported", config.path());
  nn::ModelSpec spec = read_decoder(config, {.kv_heads = 5, .context_length = 2048});
  add_sub_norms(spec);
  set_rope(spec, rope_from_config(config, rope_context(spec, 500000)));
  const bool bias = config.boolean_or("attention_bias", false);
  for (nn::BlockSpec& block : spec.blocks) block.qkv_bias = block.output_bias = bias;
  return spec;
}

void to_config(const nn::ModelSpec& spec, Json& config) {
  write_decoder(spec, "hidden_act", "silu", config);
  rope_to_config(spec.blocks[0].rope, config);
  config["attention_bias"] = spec.blocks[0].qkv_bias;
}

nn::ModelSpec from_gguf(const GgufDescription& description) {
  nn::ModelSpec spec = read_decoder(description);
  add_sub_norms(spec);
  set_rope(spec, rope_from_gguf(description, rope_context(spec)));
  return spec;
}

void to_gguf(const nn::ModelSpec& spec, GgufDescription& description) {
  write_decoder(spec, description);
  rope_to_gguf(spec.blocks[0].rope, description);
}

}  // namespace

Family bitnet_family() {
  return {.id = "bitnet",
          .architecture = "BitNetForCausalLM",
          .model_types = {"bitnet"},
          .architectures = {"BitNetForCausalLM"},
          .gguf_architecture = "bitnet",
          .from_config = from_config,
          .from_gguf = from_gguf,
          .to_config = to_config,
          .to_gguf = to_gguf};
}

}  // namespace frugal::models
