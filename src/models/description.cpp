#include "models/description.h"

#include <algorithm>

#include "base/error.h"
#include "formats/format.h"
#include "models/rope.h"

namespace frugal::models {
namespace {

using nn::BlockSpec;
using nn::ModelSpec;

constexpr std::string_view kRopeTensors[] = {"rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight"};
constexpr size_t kMaxRopeFactors = 65536;

std::vector<double> read_factors(const io::Checkpoint& checkpoint, const TensorView& view) {
  const formats::Format& format = formats::format_at(view.format);
  if (view.shape.size() != 1 || format.block_weights != 1 || !format.decode || static_cast<uint64_t>(view.shape[0]) > kMaxRopeFactors) {
    fail(ErrorKind::corrupt_file, "{}: tensor {} must be a vector of floats", checkpoint.path, view.name);
  }
  std::vector<float> values(static_cast<size_t>(view.shape[0]));
  format.decode(view.bytes.data(), values.data(), view.shape[0]);
  std::vector<double> factors;
  for (const float value : values) factors.push_back(tidy_float(value));
  return factors;
}

GgufDescription description_of(const io::Checkpoint& checkpoint) {
  GgufDescription description;
  description.metadata = checkpoint.metadata;
  const TensorView& embedding = checkpoint.at("token_embd.weight");
  if (embedding.shape.size() != 2) fail(ErrorKind::corrupt_file, "{}: tensor token_embd.weight must be a matrix", checkpoint.path);
  description.vocab = embedding.shape[0];
  description.tied_embeddings = !checkpoint.find("output.weight");
  description.qkv_bias = checkpoint.find("blk.0.attn_q.bias");
  description.output_bias = checkpoint.find("blk.0.attn_output.bias");
  description.mlp_bias = checkpoint.find("blk.0.ffn_gate.bias");
  for (const std::string_view name : kRopeTensors) {
    if (const TensorView* view = checkpoint.find(name)) description.rope_factors.emplace(name, read_factors(checkpoint, *view));
  }
  return description;
}

// frugal.json's "blocks": dimensions that differ from config.json's.
void apply_blocks(const io::Checkpoint& checkpoint, ModelSpec& spec) {
  const auto blocks = checkpoint.manifest.is_object() ? checkpoint.manifest.find("blocks") : checkpoint.manifest.end();
  if (!checkpoint.manifest.is_object() || blocks == checkpoint.manifest.end()) return;
  const std::string path = checkpoint.path + "/frugal.json.blocks";
  if (!blocks->is_array() || blocks->size() != spec.blocks.size()) {
    fail(ErrorKind::corrupt_file, "{}: must be an array with one item for each of {} layers", path, spec.blocks.size());
  }
  for (size_t i = 0; i < spec.blocks.size(); ++i) {
    const JsonObject item((*blocks)[i], fmt::format("{}[{}]", path, i));
    BlockSpec& block = spec.blocks[i];
    block.heads = item.integer("heads", 0, 65536);
    block.kv_heads = item.integer("kv_heads", 0, 65536);
    block.intermediate = item.integer("intermediate", 0, int64_t{1} << 30);
    if (block.heads > 0 && (block.kv_heads == 0 || block.heads % block.kv_heads != 0))
      item.fail_at("kv_heads", fmt::format("must divide heads, {}", block.heads));
  }
}

// The form in which specifications of equal models are equal, whichever container they come from.
ModelSpec comparable(ModelSpec spec) {
  spec.family = family_at(spec.family).gguf_architecture;  // GGUF calls a Mistral without window a Llama, which it is
  if (spec.final_norm != nn::NormKind::none) spec.final_norm = nn::NormKind::rms;
  spec.final_norm_eps = static_cast<float>(spec.final_norm_eps);
  for (size_t i = 0; i < spec.blocks.size(); ++i) {
    BlockSpec& block = spec.blocks[i];
    if (block.norm != nn::NormKind::none) block.norm = nn::NormKind::rms;  // a matter of what the stored weight means
    block.norm_eps = static_cast<float>(block.norm_eps);
    block.rope = canonical(block.rope);
    block.state_slot = static_cast<int>(i);
  }
  return spec;
}

// Names the first difference in words.
void require_same(const ModelSpec& wanted, const ModelSpec& said, std::string_view container) {
  const ModelSpec a = comparable(wanted), b = comparable(said);
  if (a == b) return;
  const auto differs = [&](std::string_view what) {
    fail(ErrorKind::unsupported, "{} of family {} cannot say this model's {}", container, wanted.family, what);
  };
  for (size_t i = 0; i < a.blocks.size() && i < b.blocks.size(); ++i) {
    const BlockSpec &x = a.blocks[i], &y = b.blocks[i];
    const std::string at = fmt::format(" (block {})", i);
    if (x.sliding_window != y.sliding_window) differs("sliding window" + at);
    if (x.rope != y.rope) differs("rope parameters" + at);
    if (x.attention_scale != y.attention_scale) differs("attention scale" + at);
    if (x.qkv_bias != y.qkv_bias || x.output_bias != y.output_bias || x.mlp_bias != y.mlp_bias) differs("biases" + at);
    if (x.mlp != y.mlp) differs("activation" + at);
    if (x.qk_norm != y.qk_norm || x.post_norms != y.post_norms || x.sub_norms != y.sub_norms || x.norm_eps != y.norm_eps || x.norm != y.norm ||
        x.norm_after_add != y.norm_after_add)
      differs("norms" + at);
    if (x.residual_scale != y.residual_scale || x.branch_scales != y.branch_scales) differs("residual sum" + at);
    if (x != y) differs("dimensions" + at);
  }
  if (a.embedding_scale != b.embedding_scale) differs("embedding scale");
  if (a.final_norm != b.final_norm) differs("final norm");
  if (a.logit_softcap != b.logit_softcap) differs("logit softcap");
  differs("sizes");
}

Json write_config(const ModelSpec& spec) {
  const Family& family = family_at(spec.family);
  Json config = {{"architectures", {family.architecture}}, {"model_type", family.model_types.front()}};
  family.to_config(spec, config);
  return config;
}

ModelSpec read_back(const Json& config, const ModelSpec& spec) { return family_at(spec.family).from_config(JsonObject(config, "config.json")); }

}  // namespace

ModelSpec describe(const io::Checkpoint& checkpoint) {
  if (checkpoint.container == io::Container::gguf) return family_of_gguf(checkpoint.metadata).from_gguf(description_of(checkpoint));
  const JsonObject config(checkpoint.config, checkpoint.path + "/config.json");
  ModelSpec spec = family_of_config(config).from_config(config);
  apply_blocks(checkpoint, spec);
  return spec;
}

Json config_of(const ModelSpec& spec) {
  Json config = write_config(spec);
  require_same(spec, read_back(config, spec), "config.json");
  return config;
}

ConfigAndBlocks config_and_blocks_of(const ModelSpec& spec) {
  if (spec.blocks.empty()) fail(ErrorKind::unsupported, "a model without blocks cannot be stored");
  ModelSpec even = spec;
  const auto larger = [](const BlockSpec& a, const BlockSpec& b) { return std::pair(a.heads, a.intermediate) < std::pair(b.heads, b.intermediate); };
  const BlockSpec largest = *std::max_element(spec.blocks.begin(), spec.blocks.end(), larger);
  Json blocks = Json::array();
  bool needed = false;
  for (BlockSpec& block : even.blocks) {
    blocks.push_back({{"heads", block.heads}, {"kv_heads", block.kv_heads}, {"intermediate", block.intermediate}});
    const bool equal = block.heads == largest.heads && block.kv_heads == largest.kv_heads && block.intermediate == largest.intermediate;
    needed = needed || !equal || block.heads == 0 || block.intermediate == 0;
    // config.json has no zeros; what it says instead is overruled.
    block.heads = std::max<int64_t>(largest.heads, 1);
    block.kv_heads = std::max<int64_t>(largest.kv_heads, 1);
    block.intermediate = std::max<int64_t>(largest.intermediate, 1);
  }
  return {config_of(even), needed ? std::move(blocks) : Json()};
}

GgufDescription gguf_of(const ModelSpec& spec) {
  const Family& family = family_at(spec.family);
  GgufDescription description;
  description.metadata = Metadata("GGUF");
  description.metadata.set("general.architecture", std::string(family.gguf_architecture));
  family.to_gguf(spec, description);
  require_same(spec, family.from_gguf(description), "GGUF");
  return description;
}

void erase_interpreted_keys(Json& config) {
  for (const char* key : {"architectures",
                          "model_type",
                          "vocab_size",
                          "hidden_size",
                          "intermediate_size",
                          "num_hidden_layers",
                          "num_attention_heads",
                          "num_key_value_heads",
                          "head_dim",
                          "max_position_embeddings",
                          "original_max_position_embeddings",
                          "rms_norm_eps",
                          "hidden_act",
                          "hidden_activation",
                          "tie_word_embeddings",
                          "share_embedding",
                          "layer_sharing",
                          "rope_theta",
                          "rope_scaling",
                          "rope_parameters",
                          "rope_local_base_freq",
                          "norm_placement",
                          "residual_scale",
                          "branch_scales",
                          "embedding_scale",
                          "attention_bias",
                          "mlp_bias",
                          "sliding_window",
                          "use_sliding_window",
                          "max_window_layers",
                          "layer_types",
                          "sliding_window_pattern",
                          "_sliding_window_pattern",
                          "query_pre_attn_scalar",
                          "final_logit_softcapping",
                          "quantization_config",
                          "auto_map"}) {
    config.erase(key);
  }
}

}  // namespace frugal::models
