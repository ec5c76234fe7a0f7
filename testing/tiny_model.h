// A small random model built in memory, for tests of everything above nn/. Odd sizes are the point: nothing here is a
// multiple of 32 unless a test asks for it.
#pragma once

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <memory>

#include "nn/model.h"

namespace frugal::testing {

// Random codes, scales that fp16 holds.
inline formats::GroupedWeight random_grouped(int64_t rows, int64_t columns, int bits, int64_t group, bool symmetric) {
  formats::GroupedWeight weight;
  weight.rows = rows;
  weight.columns = columns;
  weight.bits = bits;
  weight.group_size = group;
  weight.symmetric = symmetric;
  weight.codes.resize(static_cast<size_t>(rows * weight.words_per_row()));
  std::vector<uint8_t> codes(static_cast<size_t>(columns));
  for (int64_t r = 0; r < rows; ++r) {
    for (uint8_t& code : codes) code = static_cast<uint8_t>(std::rand() % (1 << bits));
    formats::pack_row(weight, r, codes.data());
  }
  for (int64_t i = 0; i < rows * weight.groups(); ++i) {
    weight.scales.push_back(static_cast<float>(static_cast<at::Half>(0.01f + 0.01f * static_cast<float>(std::rand() % 7))));
    if (!symmetric) weight.zeros.push_back(static_cast<float>(std::rand() % (1 << bits)));
  }
  return weight;
}

struct TinyModelOptions {
  int64_t vocab = 61, hidden = 40, heads = 5, kv_heads = 1, head_dim = 8, intermediate = 72;
  int blocks = 2;
  bool tied = true, qk_norm = false, post_norms = false, sub_norms = false, biases = false;
  int64_t window = 0;
  nn::NormKind norm = nn::NormKind::rms;
  bool norm_after_add = false, branch_scales = false;
  double residual_scale = 1;
};

inline nn::Model tiny_model(const TinyModelOptions& o = {}) {
  const at::NoGradGuard no_grad;
  const auto weight = [](int64_t out, int64_t in) { return at::randn({out, in}) / std::sqrt(static_cast<double>(in)); };
  const auto norm = [&](int64_t size) {
    return o.norm == nn::NormKind::none ? nn::Norm{o.norm, 1e-6, {}} : nn::Norm{nn::NormKind::rms, 1e-6, 1 + 0.3 * at::randn({size})};
  };
  nn::Model model;
  model.spec.family = "llama";
  model.spec.vocab = o.vocab;
  model.spec.hidden = o.hidden;
  model.spec.context_length = 256;
  model.spec.tied_embeddings = o.tied;
  model.spec.final_norm = o.norm;
  model.embedding = std::make_shared<nn::DenseKind>(at::randn({o.vocab, o.hidden}));
  for (int i = 0; i < o.blocks; ++i) {
    nn::Block block;
    nn::BlockSpec& spec = block.spec;
    spec.hidden = o.hidden;
    spec.heads = o.heads;
    spec.kv_heads = o.kv_heads;
    spec.head_dim = o.head_dim;
    spec.intermediate = o.intermediate;
    spec.rope.rotary_dim = o.head_dim;
    spec.attention_scale = 1 / std::sqrt(static_cast<double>(o.head_dim));
    spec.sliding_window = o.window;
    spec.qk_norm = o.qk_norm;
    spec.post_norms = o.post_norms;
    spec.sub_norms = o.sub_norms;
    spec.norm = o.norm;
    spec.norm_after_add = o.norm_after_add;
    spec.residual_scale = o.residual_scale;
    spec.branch_scales = o.branch_scales;
    spec.qkv_bias = o.biases;
    spec.state_slot = i;
    const auto linear = [&](const char* name, int64_t out, int64_t in, bool bias) {
      return nn::Linear("model.layers." + std::to_string(i) + "." + name, std::make_shared<nn::DenseKind>(weight(out, in)),
                        bias ? at::randn({out}) : at::Tensor());
    };
    block.query = linear("self_attn.q_proj", o.heads * o.head_dim, o.hidden, o.biases);
    block.key = linear("self_attn.k_proj", o.kv_heads * o.head_dim, o.hidden, o.biases);
    block.value = linear("self_attn.v_proj", o.kv_heads * o.head_dim, o.hidden, o.biases);
    block.output = linear("self_attn.o_proj", o.hidden, o.heads * o.head_dim, false);
    block.gate = linear("mlp.gate_proj", o.intermediate, o.hidden, false);
    block.up = linear("mlp.up_proj", o.intermediate, o.hidden, false);
    block.down = linear("mlp.down_proj", o.hidden, o.intermediate, false);
    block.input_norm = norm(o.hidden);
    block.post_attention_norm = norm(o.hidden);
    if (o.post_norms) {
      block.attention_output_norm = norm(o.hidden);
      block.mlp_output_norm = norm(o.hidden);
    }
    if (o.sub_norms) {
      block.attention_sub_norm = norm(o.heads * o.head_dim);
      block.mlp_sub_norm = norm(o.intermediate);
    }
    if (o.branch_scales) {
      block.attention_branch_scale = 0.5 + 0.2 * at::randn({1});
      block.mlp_branch_scale = 0.5 + 0.2 * at::randn({1});
    }
    if (o.qk_norm) {
      block.query_norm = norm(o.head_dim);
      block.key_norm = norm(o.head_dim);
    }
    model.spec.blocks.push_back(spec);
    model.blocks.push_back(std::move(block));
  }
  model.final_norm = norm(o.hidden);
  model.head = nn::Linear("lm_head", o.tied ? model.embedding : std::make_shared<nn::DenseKind>(weight(o.vocab, o.hidden)));
  model.original_parameters = model.parameters();
  return model;
}

inline std::vector<int32_t> random_tokens(int64_t count, int64_t vocab) {
  const at::Tensor ids = at::randint(0, vocab, {count}, at::kInt);
  return {ids.const_data_ptr<int32_t>(), ids.const_data_ptr<int32_t>() + count};
}

inline double relative_error(const at::Tensor& got, const at::Tensor& want) { return ((got - want).norm() / (want.norm() + 1e-30)).item<double>(); }

}  // namespace frugal::testing
