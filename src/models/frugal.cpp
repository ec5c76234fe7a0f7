// Llama with another residual stream, as models are trained by `frugal train --initialization`: norms after the sum (DeepNorm, arXiv 2203.00555) or none
// (ReZero, arXiv 2003.04887), a scaled sum, learned scales of what is added, a scaled embedding. An architecture of our own: neither transformers nor
// llama.cpp has a class that computes it.
#include "base/error.h"
#include "models/decoder_keys.h"
#include "models/families.h"

namespace frugal::models {
namespace {

constexpr const char *kBefore = "before", *kAfter = "after", *kNone = "none";

nn::ModelSpec from_config(const JsonObject& config) {
  nn::ModelSpec spec = read_decoder(config, {.context_length = 2048});
  spec.family = "frugal";
  set_rope(spec, rope_from_config(config, rope_context(spec)));
  const std::string placement = config.text("norm_placement");
  if (placement != kBefore && placement != kAfter && placement != kNone)
    config.fail_at("norm_placement", fmt::format("must be \"{}\", \"{}\" or \"{}\"", kBefore, kAfter, kNone));
  spec.embedding_scale = config.number_or("embedding_scale", 1, 1e-6, 1e6);
  const double residual_scale = config.number_or("residual_scale", 1, 1e-6, 1e6);
  const bool branch_scales = config.boolean_or("branch_scales", false);
  const nn::NormKind norm = placement == kNone ? nn::NormKind::none : nn::NormKind::rms;
  // After a block that ends with a norm, another one would do nothing but train.
  spec.final_norm = placement == kBefore ? norm : nn::NormKind::none;
  for (nn::BlockSpec& block : spec.blocks) {
    block.norm = norm;
    block.norm_after_add = placement == kAfter;
    block.residual_scale = residual_scale;
    block.branch_scales = branch_scales;
  }
  return spec;
}

void to_config(const nn::ModelSpec& spec, Json& config) {
  write_decoder(spec, "hidden_act", "silu", config);
  const nn::BlockSpec& block = spec.blocks[0];
  rope_to_config(block.rope, config);
  config["norm_placement"] = block.norm == nn::NormKind::none ? kNone : block.norm_after_add ? kAfter : kBefore;
  config["residual_scale"] = block.residual_scale;
  config["branch_scales"] = block.branch_scales;
  config["embedding_scale"] = spec.embedding_scale;
}

constexpr const char* kNoWords = "GGUF has no words for another residual stream than Llama's (family frugal): save a directory";

nn::ModelSpec from_gguf(const GgufDescription&) { fail(ErrorKind::unsupported, "{}", kNoWords); }
void to_gguf(const nn::ModelSpec&, GgufDescription&) { fail(ErrorKind::unsupported, "{}", kNoWords); }

}  // namespace

Family frugal_family() {
  return {.id = "frugal",
          .architecture = "FrugalForCausalLM",
          .model_types = {"frugal"},
          .architectures = {"FrugalForCausalLM"},
          .gguf_architecture = "frugal",
          .from_config = from_config,
          .from_gguf = from_gguf,
          .to_config = to_config,
          .to_gguf = to_gguf,
          .in_transformers = false};
}

}  // namespace frugal::models
