// A model as data. models/ maps a family's configuration keys to these structs; nn/ builds modules from them. Dimensions
// are per layer (structured pruning changes them), and nothing is guessed from names or sizes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace frugal::nn {

enum class NormKind { rms, rms_plus_one, none };  // rms_plus_one: x * (1 + weight), Gemma; none: x
enum class MlpKind { gated_silu, gated_gelu_tanh };

// Rotary position embedding (arXiv 2104.09864) with every `rope_scaling` kind of Hugging Face.
enum class RopeScaling { none, linear, dynamic, llama3, yarn, longrope };

struct RopeSpec {
  double theta = 10000;
  int64_t rotary_dim = 0;  // <= head_dim, even
  RopeScaling scaling = RopeScaling::none;
  double factor = 1;
  int64_t original_context = 0;                                // context before scaling
  double low_frequency_factor = 1, high_frequency_factor = 4;  // llama3
  double beta_fast = 32, beta_slow = 1;                        // yarn
  double attention_factor = 0;                                 // yarn, longrope; 0: the paper's default
  double mscale = 0, mscale_all_dim = 0;                       // yarn (DeepSeek)
  bool truncate = true;                                        // yarn
  std::vector<double> short_factors, long_factors;             // longrope, [rotary_dim / 2]
  bool operator==(const RopeSpec&) const = default;
};

struct BlockSpec {
  int64_t hidden = 0;
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  int64_t intermediate = 0;
  NormKind norm = NormKind::rms;
  double norm_eps = 1e-6;
  MlpKind mlp = MlpKind::gated_silu;
  RopeSpec rope;
  double attention_scale = 0;   // multiplies q*k
  int64_t sliding_window = 0;   // 0: full causal attention
  bool qk_norm = false;         // RMS norm of each head of q and k (Qwen 3, Gemma 3)
  bool post_norms = false;      // norms on the outputs of attention and MLP too (Gemma 2, 3)
  bool sub_norms = false;       // norms before the last Linear of attention and of the MLP (SubLN, BitNet)
  bool norm_after_add = false;  // norm(x + f(x)), as the first transformers, in place of x + f(norm(x))
  double residual_scale = 1;    // multiplies x where the output of attention or MLP is added to it (DeepNorm)
  bool branch_scales = false;   // learned numbers multiply the outputs of attention and MLP (ReZero, SkipInit)
  bool qkv_bias = false, output_bias = false, mlp_bias = false;
  int state_slot = 0;  // which slot of SequenceState holds its keys and values
  bool operator==(const BlockSpec&) const = default;
};

struct ModelSpec {
  std::string family;  // row id of models/model_table.cpp
  int64_t vocab = 0;
  int64_t hidden = 0;
  int64_t context_length = 0;  // of training, as the checkpoint says
  double embedding_scale = 1;  // Gemma: sqrt(hidden)
  double logit_softcap = 0;    // 0: none
  bool tied_embeddings = false;
  NormKind final_norm = NormKind::rms;
  double final_norm_eps = 1e-6;
  std::vector<BlockSpec> blocks;
  bool operator==(const ModelSpec&) const = default;
};

}  // namespace frugal::nn
