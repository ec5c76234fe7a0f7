#include "train/new_model.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/rng.h"
#include "io/checkpoint.h"
#include "io/safetensors.h"
#include "nn/sharing.h"
#include "text/tokenizer.h"
#include "train/initialization.h"

namespace frugal::train {
namespace {

constexpr uint64_t kMaxParameters = uint64_t{1} << 36;
constexpr const char* kOwnFamily = "frugal";

struct Shape {
  int64_t hidden, layers, heads, kv_heads, head_dim, intermediate, vocab, context;
  bool tied, sub_norms;
  std::string sharing;
  double deviation, rope_theta, eps;
  std::optional<InitializationChoice> initialization;
  bool changes_stream() const { return initialization && initialization->row->function.change; }
};

Shape shape_of(const Options& options, int64_t vocab) {
  Shape s{};
  s.hidden = options.integer("hidden_size");
  s.layers = options.integer("num_hidden_layers");
  s.heads = options.integer("num_attention_heads");
  s.kv_heads = options.integer("num_key_value_heads") > 0 ? options.integer("num_key_value_heads") : s.heads;
  if (s.hidden % s.heads != 0) fail(ErrorKind::invalid_input, "hidden_size {} is no multiple of num_attention_heads {}", s.hidden, s.heads);
  if (s.heads % s.kv_heads != 0) fail(ErrorKind::invalid_input, "num_attention_heads {} is no multiple of num_key_value_heads {}", s.heads, s.kv_heads);
  s.head_dim = s.hidden / s.heads;
  if (s.head_dim % 2 != 0) fail(ErrorKind::invalid_input, "a head has {} channels: rotary positions need an even number", s.head_dim);
  // Llama's: 8/3 of the width, to a multiple of 32.
  s.intermediate = options.integer("intermediate_size") > 0 ? options.integer("intermediate_size") : (s.hidden * 8 / 3 + 31) / 32 * 32;
  s.vocab = vocab;
  s.context = options.integer("max_position_embeddings");
  s.tied = options.boolean("tie_word_embeddings");
  s.sub_norms = options.boolean("sub_norms");
  s.sharing = options.text("sharing");
  if (s.sharing != "none" && s.sub_norms) fail(ErrorKind::invalid_input, "sub_norms: BitNet's architecture has no sharing of {}", s.sharing);
  s.deviation = options.number("initializer_range");
  s.rope_theta = options.number("rope_theta");
  s.eps = options.number("rms_norm_eps");
  if (const std::string& text = options.text("initialization"); !text.empty()) {
    s.initialization = choose_method(initialization_table(), text);
    if (s.changes_stream() && (s.sub_norms || s.sharing != "none"))
      fail(ErrorKind::unsupported, "initialization: {} has a residual stream of its own, which goes with no {}", s.initialization->row->id,
           s.sub_norms ? "sub_norms (BitNet)" : "sharing of " + s.sharing);
  }
  return s;
}

void require_writable(const Shape& s) {
  const uint64_t block = static_cast<uint64_t>(s.hidden) * static_cast<uint64_t>(2 * s.hidden + 2 * s.kv_heads * s.head_dim + 3 * s.intermediate);
  if (block * static_cast<uint64_t>(s.layers) + static_cast<uint64_t>(s.hidden) * static_cast<uint64_t>(s.vocab) > kMaxParameters) {
    fail(ErrorKind::invalid_input, "a model of this shape has more than {} parameters", kMaxParameters);
  }
}

struct Names {
  const char *family, *architecture;  // the model_type is the family
};

Names names_of(const Shape& s) {
  if (s.changes_stream()) return {kOwnFamily, "FrugalForCausalLM"};
  if (s.sub_norms) return {"bitnet", "BitNetForCausalLM"};
  if (s.sharing == "blocks") return {"mobilellm", "MobileLLMForCausalLM"};
  if (s.sharing == "mlp") return {"mobillama", "MobiLlamaForCausalLM"};
  return {"llama", "LlamaForCausalLM"};
}

Json config_of(const Shape& s, const nn::ModelSpec& spec, const text::SpecialTokens& special) {
  Json config = {{"architectures", {names_of(s).architecture}},
                 {"model_type", names_of(s).family},
                 {"vocab_size", s.vocab},
                 {"hidden_size", s.hidden},
                 {"intermediate_size", s.intermediate},
                 {"num_hidden_layers", s.layers},
                 {"num_attention_heads", s.heads},
                 {"num_key_value_heads", s.kv_heads},
                 {"head_dim", s.head_dim},
                 {"hidden_act", "silu"},
                 {"max_position_embeddings", s.context},
                 {"initializer_range", s.deviation},
                 {"rms_norm_eps", s.eps},
                 {"rope_theta", s.rope_theta},
                 {"tie_word_embeddings", s.tied},
                 {"attention_bias", false},
                 {"mlp_bias", false},
                 {"torch_dtype", "float32"}};
  if (s.sharing == "blocks") {
    config["layer_sharing"] = true;
    config["share_embedding"] = s.tied;
  }
  if (spec.family == kOwnFamily) {
    const nn::BlockSpec& block = spec.blocks.front();
    config["norm_placement"] = block.norm == nn::NormKind::none ? "none" : block.norm_after_add ? "after" : "before";
    config["residual_scale"] = block.residual_scale;
    config["branch_scales"] = block.branch_scales;
    config["embedding_scale"] = spec.embedding_scale;
  }
  if (special.bos) config["bos_token_id"] = *special.bos;
  if (special.eos) config["eos_token_id"] = *special.eos;
  if (special.pad) config["pad_token_id"] = *special.pad;
  return config;
}

// Each matrix is drawn from a stream of its own, when the file gets to it.
io::TensorToWrite drawn(const Parameter& parameter, uint64_t stream, double deviation) {
  return {parameter.name, "F32", parameter.tensor.sizes().vec(), [=](std::span<std::byte> bytes) {
            Rng rng(stream);
            auto* values = reinterpret_cast<float*>(bytes.data());
            for (size_t i = 0; i < bytes.size() / sizeof(float); ++i) values[i] = static_cast<float>(rng.normal() * deviation);
          }};
}

Begin begin_of(const Shape& s, const nn::ModelSpec& spec, const Parameter& parameter) {
  const bool matrix = parameter.tensor.dim() >= 2, writes_residual = parameter.name.ends_with("o_proj.weight") || parameter.name.ends_with("down_proj.weight");
  const double residual = writes_residual ? 1 / std::sqrt(2.0 * static_cast<double>(spec.blocks.size())) : 1;
  const double usual = matrix ? s.deviation * residual : 1;
  return s.initialization ? s.initialization->row->function.begin(spec, parameter, usual, s.initialization->options) : Begin{usual};
}

std::vector<io::TensorToWrite> weights_of(const Shape& s, const nn::ModelSpec& spec, uint64_t seed) {
  std::vector<io::TensorToWrite> tensors;
  uint64_t matrices = 0;
  for (const Parameter& parameter : parameters_of(spec)) {
    const std::string& name = parameter.name;
    const double value = begin_of(s, spec, parameter).value;
    if (parameter.tensor.dim() < 2) {
      tensors.push_back(io::owned_tensor<float>(name, "F32", parameter.tensor.sizes().vec(),
                                                std::vector<float>(static_cast<size_t>(parameter.tensor.numel()), static_cast<float>(value))));
      continue;
    }
    tensors.push_back(drawn(parameter, seed * 0x9E3779B97F4A7C15 + ++matrices, value));
  }
  return tensors;
}

nn::ModelSpec spec_of(const Shape& s) {
  nn::ModelSpec spec;
  spec.family = s.sub_norms ? "llama" : names_of(s).family;
  spec.vocab = s.vocab;
  spec.hidden = s.hidden;
  spec.context_length = s.context;
  spec.tied_embeddings = s.tied;
  nn::BlockSpec block;
  block.hidden = s.hidden;
  block.heads = s.heads;
  block.kv_heads = s.kv_heads;
  block.head_dim = s.head_dim;
  block.intermediate = s.intermediate;
  block.sub_norms = s.sub_norms;
  spec.blocks.assign(static_cast<size_t>(s.layers) * nn::sharing_of(spec).repeats, block);
  if (s.changes_stream()) s.initialization->row->function.change(spec, s.deviation, s.initialization->options);
  return spec;
}

}  // namespace

const std::vector<OptionSpec>& shape_options() {
  static const std::vector<OptionSpec> options = {
      integer_option("hidden_size", 256, 2, 1 << 20, "width of the residual stream"),
      integer_option("num_hidden_layers", 6, 1, 1 << 12, "blocks"),
      integer_option("num_attention_heads", 4, 1, 1 << 12, "heads of the queries"),
      integer_option("num_key_value_heads", 0, 0, 1 << 12, "heads of keys and values (0: as many)"),
      integer_option("intermediate_size", 0, 0, 1 << 24, "width inside the MLP (0: 8/3 of the width, to a multiple of 32)"),
      integer_option("max_position_embeddings", 1024, 2, 1 << 24, "context in tokens"),
      boolean_option("tie_word_embeddings", true, "one matrix for embedding and head"),
      choice_option("sharing", "none", {"none", "blocks", "mlp"},
                    "of weights: blocks, each is computed twice in a row (mobilellm-ls); mlp, all blocks have one (mobillama)"),
      boolean_option("sub_norms", false, "norms before the output projections of attention and MLP (BitNet's SubLN)"),
      text_option("initialization", "",
                  fmt::format("how it begins, id or id:key=value,...: {} (empty: GPT-2's normal weights)", ids_of(initialization_table()))),
      number_option("initializer_range", 0.02, 1e-6, 10, "deviation of the drawn weights"),
      number_option("rope_theta", 10000, 1, 1e12, "base of the rotary frequencies"),
      number_option("rms_norm_eps", 1e-5, 1e-12, 1, "added to the mean square in norms"),
  };
  return options;
}

nn::ModelSpec new_model_spec(const Options& shape, int64_t vocab) { return spec_of(shape_of(shape, vocab)); }

std::vector<Parameter> parameters_of(const nn::ModelSpec& spec) {
  std::vector<Parameter> parameters;
  const auto add = [&](const std::string& name, std::vector<int64_t> shape) {
    parameters.push_back({name, at::empty(shape, at::TensorOptions(at::kFloat).device(at::kMeta))});
  };
  const auto norm = [&](const std::string& name, int64_t size) { add(name + ".weight", {size}); };
  const auto linear = [&](const std::string& name, int64_t out, int64_t in, bool bias = false) {
    add(name + ".weight", {out, in});
    if (bias) add(name + ".bias", {out});
  };
  linear("model.embed_tokens", spec.vocab, spec.hidden);
  const nn::Sharing sharing = nn::sharing_of(spec);
  for (size_t i = 0; i < spec.blocks.size(); ++i) {
    if (!sharing.owns(i)) continue;
    const nn::BlockSpec& b = spec.blocks[i];
    const std::string block = fmt::format("model.layers.{}.", sharing.stored(i));
    const int64_t queries = b.heads * b.head_dim, keys = b.kv_heads * b.head_dim;
    const bool normed = b.norm != nn::NormKind::none;
    if (b.heads > 0) {
      if (normed) norm(block + "input_layernorm", b.hidden);
      linear(block + "self_attn.q_proj", queries, b.hidden, b.qkv_bias);
      linear(block + "self_attn.k_proj", keys, b.hidden, b.qkv_bias);
      linear(block + "self_attn.v_proj", keys, b.hidden, b.qkv_bias);
      if (b.qk_norm) norm(block + "self_attn.q_norm", b.head_dim);
      if (b.qk_norm) norm(block + "self_attn.k_norm", b.head_dim);
      if (b.sub_norms) norm(block + "self_attn.attn_sub_norm", queries);
      linear(block + "self_attn.o_proj", b.hidden, queries, b.output_bias);
      if (b.branch_scales) add(block + "self_attn.branch_scale", {1});
    }
    if (normed && (b.post_norms || b.intermediate > 0)) norm(block + "post_attention_layernorm", b.hidden);
    if (b.post_norms) norm(block + "pre_feedforward_layernorm", b.hidden);
    if (b.post_norms) norm(block + "post_feedforward_layernorm", b.hidden);
    if (b.intermediate > 0 && sharing.owns_mlp(i)) {
      linear(block + "mlp.gate_proj", b.intermediate, b.hidden, b.mlp_bias);
      linear(block + "mlp.up_proj", b.intermediate, b.hidden, b.mlp_bias);
      if (b.sub_norms) norm(block + "mlp.ffn_sub_norm", b.intermediate);
      linear(block + "mlp.down_proj", b.hidden, b.intermediate, b.mlp_bias);
      if (b.branch_scales) add(block + "mlp.branch_scale", {1});
    }
  }
  if (spec.final_norm != nn::NormKind::none) norm("model.norm", spec.hidden);
  if (!spec.tied_embeddings) linear("lm_head", spec.vocab, spec.hidden);
  return parameters;
}

void scale_rates(const Options& shape, const nn::ModelSpec& spec, std::string_view optimizer, std::vector<Parameter>& parameters) {
  const Shape s = shape_of(shape, spec.vocab);
  if (!s.initialization) return;
  const InitializationRow& row = *s.initialization->row;
  constexpr std::string_view kAdams[] = {"adamw", "adam8bit", "lion", "schedule-free"};
  if (row.function.wants_adam && std::ranges::find(kAdams, optimizer) == std::end(kAdams))
    fail(ErrorKind::unsupported, "initialization: the rates of {} are for adamw, adam8bit, lion and schedule-free, not for {}", row.id, optimizer);
  for (Parameter& parameter : parameters) parameter.learning_rate_scale *= begin_of(s, spec, parameter).learning_rate_scale;
}

void write_new_model(const std::string& directory, const Options& shape, const std::string& tokenizer, uint64_t seed) {
  const auto words = text::load_tokenizer_directory(tokenizer);
  const Shape s = shape_of(shape, words->vocab_size());
  require_writable(s);
  AtomicDirectory target(directory, true, "config.json");
  io::copy_text_files(tokenizer, target.staging());
  const nn::ModelSpec spec = spec_of(s);
  write_text_file(target.staging() + "/config.json", config_of(s, spec, words->special()).dump(2) + "\n");
  io::write_model_tensors(target.staging(), weights_of(s, spec, seed));
  target.commit();
}

}  // namespace frugal::train
