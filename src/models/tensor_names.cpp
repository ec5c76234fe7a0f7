#include "models/tensor_names.h"

#include <fmt/format.h>

namespace frugal::models {

using nn::Block;
using nn::BlockSpec;

ModuleName embedding_name() { return {"model.embed_tokens", "token_embd"}; }
ModuleName final_norm_name() { return {"model.norm", "output_norm"}; }
ModuleName head_name() { return {"lm_head", "output"}; }

std::span<const BlockLinear> block_linears() {
  static constexpr BlockLinear kLinears[] = {
      {&Block::query, "self_attn.q_proj", "attn_q", BiasOf::qkv, true},  {&Block::key, "self_attn.k_proj", "attn_k", BiasOf::qkv, true},
      {&Block::value, "self_attn.v_proj", "attn_v", BiasOf::qkv, false}, {&Block::output, "self_attn.o_proj", "attn_output", BiasOf::output, false},
      {&Block::gate, "mlp.gate_proj", "ffn_gate", BiasOf::mlp, false},   {&Block::up, "mlp.up_proj", "ffn_up", BiasOf::mlp, false},
      {&Block::down, "mlp.down_proj", "ffn_down", BiasOf::mlp, false},
  };
  return kLinears;
}

bool is_mlp(const BlockLinear& linear) { return linear.bias == BiasOf::mlp; }

bool has_bias(const BlockSpec& spec, BiasOf bias) {
  switch (bias) {
    case BiasOf::qkv: return spec.qkv_bias;
    case BiasOf::output: return spec.output_bias;
    case BiasOf::mlp: return spec.mlp_bias;
  }
  return false;
}

MatrixShape shape_of(const BlockSpec& spec, const BlockLinear& linear) {
  const int64_t queries = spec.heads * spec.head_dim, keys = spec.kv_heads * spec.head_dim;
  if (linear.member == &Block::query) return spec.heads == 0 ? MatrixShape{} : MatrixShape{queries, spec.hidden};
  if (linear.member == &Block::key || linear.member == &Block::value) return spec.heads == 0 ? MatrixShape{} : MatrixShape{keys, spec.hidden};
  if (linear.member == &Block::output) return spec.heads == 0 ? MatrixShape{} : MatrixShape{spec.hidden, queries};
  if (spec.intermediate == 0) return {};
  return linear.member == &Block::down ? MatrixShape{spec.hidden, spec.intermediate} : MatrixShape{spec.intermediate, spec.hidden};
}

std::vector<BlockNorm> block_norms(const BlockSpec& spec) {
  std::vector<BlockNorm> norms;
  if (spec.norm == nn::NormKind::none) return norms;
  const bool attention = spec.heads > 0, mlp = spec.intermediate > 0;
  if (attention) norms.push_back({&Block::input_norm, "input_layernorm", "attn_norm", spec.hidden});
  if (attention && spec.qk_norm) {
    norms.push_back({&Block::query_norm, "self_attn.q_norm", "attn_q_norm", spec.head_dim});
    norms.push_back({&Block::key_norm, "self_attn.k_norm", "attn_k_norm", spec.head_dim});
  }
  if (attention && spec.sub_norms) norms.push_back({&Block::attention_sub_norm, "self_attn.attn_sub_norm", "attn_sub_norm", spec.heads * spec.head_dim});
  if (mlp && spec.sub_norms) norms.push_back({&Block::mlp_sub_norm, "mlp.ffn_sub_norm", "ffn_sub_norm", spec.intermediate});
  if (!spec.post_norms) {  // Llama: the second norm, before the MLP, is named after what is before it
    if (mlp) norms.push_back({&Block::post_attention_norm, "post_attention_layernorm", "ffn_norm", spec.hidden});
    return norms;
  }
  if (attention) norms.push_back({&Block::attention_output_norm, "post_attention_layernorm", "post_attention_norm", spec.hidden});
  if (mlp) {
    norms.push_back({&Block::post_attention_norm, "pre_feedforward_layernorm", "ffn_norm", spec.hidden});
    norms.push_back({&Block::mlp_output_norm, "post_feedforward_layernorm", "post_ffw_norm", spec.hidden});
  }
  return norms;
}

std::vector<BranchScale> branch_scales(const BlockSpec& spec) {
  std::vector<BranchScale> scales;
  if (spec.branch_scales && spec.heads > 0) scales.push_back({&Block::attention_branch_scale, "self_attn.branch_scale"});
  if (spec.branch_scales && spec.intermediate > 0) scales.push_back({&Block::mlp_branch_scale, "mlp.branch_scale"});
  return scales;
}

ModuleName block_module(size_t block, std::string_view huggingface, std::string_view gguf) {
  return {fmt::format("model.layers.{}.{}", block, huggingface), fmt::format("blk.{}.{}", block, gguf)};
}

}  // namespace frugal::models
