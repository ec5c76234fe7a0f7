// Llamas whose blocks share weights (nn/sharing.h): MobileLLM with layer_sharing (arXiv 2402.14905), MobiLlama (arXiv 2402.16840).
#include <algorithm>

#include "base/error.h"
#include "models/decoder_keys.h"
#include "models/families.h"
#include "nn/sharing.h"

namespace frugal::models {
namespace {

// The class has share_embedding beside tie_word_embeddings, and it is what counts there.
nn::ModelSpec mobilellm_from_config(const JsonObject& config) {
  nn::ModelSpec spec = read_llama(config, {.context_length = 2048, .tied_embeddings = true});
  if (config.has("share_embedding")) spec.tied_embeddings = config.boolean_or("share_embedding", true);
  spec.family = "llama";  // which it is where nothing is shared
  if (!config.boolean_or("layer_sharing", false)) return spec;
  spec.family = "mobilellm";
  const std::vector<nn::BlockSpec> stored = std::move(spec.blocks);
  spec.blocks.clear();
  for (size_t i = 0; i < stored.size() * nn::sharing_of(spec).repeats; ++i) {
    spec.blocks.push_back(stored[nn::sharing_of(spec).stored(i)]);
    spec.blocks.back().state_slot = static_cast<int>(i);
  }
  return spec;
}

void mobilellm_to_config(const nn::ModelSpec& spec, Json& config) {
  write_llama(spec, config);
  config["num_hidden_layers"] = nn::sharing_of(spec).stored(spec.blocks.size());
  config["layer_sharing"] = true;
  config["share_embedding"] = spec.tied_embeddings;
}

nn::ModelSpec mobillama_from_config(const JsonObject& config) {
  nn::ModelSpec spec = read_llama(config, {.context_length = 2048});
  spec.family = "mobillama";
  return spec;
}

nn::ModelSpec from_gguf(const GgufDescription&) { fail(ErrorKind::unsupported, "GGUF cannot say that blocks share weights"); }
void to_gguf(const nn::ModelSpec&, GgufDescription&) { fail(ErrorKind::unsupported, "GGUF cannot say that blocks share weights"); }

}  // namespace

Family mobilellm_family() {
  return {.id = "mobilellm",
          .architecture = "MobileLLMForCausalLM",
          .model_types = {"mobilellm"},
          .architectures = {"MobileLLMForCausalLM"},
          .gguf_architecture = "mobilellm",
          .from_config = mobilellm_from_config,
          .from_gguf = from_gguf,
          .to_config = mobilellm_to_config,
          .to_gguf = to_gguf};
}

Family mobillama_family() {
  return {.id = "mobillama",
          .architecture = "MobiLlamaForCausalLM",
          .model_types = {"mobillama"},
          .architectures = {"MobiLlamaForCausalLM"},
          .gguf_architecture = "mobillama",
          .from_config = mobillama_from_config,
          .from_gguf = from_gguf,
          .to_config = write_llama,
          .to_gguf = to_gguf};
}

}  // namespace frugal::models
