// What the tensors of a model are called, in Hugging Face's words and in GGUF's. The names are the same in all families;
// only the norms depend on which a block has.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nn/model.h"

namespace frugal::models {

// A module that holds "<name>.weight" and perhaps "<name>.bias".
struct ModuleName {
  std::string huggingface;
  std::string gguf;
};

ModuleName embedding_name();
ModuleName final_norm_name();
ModuleName head_name();

// What of a block's bias flags a Linear goes by.
enum class BiasOf { qkv, output, mlp };

struct BlockLinear {
  nn::Linear nn::Block::*member;
  std::string_view huggingface, gguf;  // inside the block
  BiasOf bias;
  bool rotary;  // rows are rotated: q and k
};
std::span<const BlockLinear> block_linears();
bool is_mlp(const BlockLinear& linear);

bool has_bias(const nn::BlockSpec& spec, BiasOf bias);
// [out_features, in_features] of a Linear; {0, 0} when the block lacks that half.
struct MatrixShape {
  int64_t out = 0, in = 0;
};
MatrixShape shape_of(const nn::BlockSpec& spec, const BlockLinear& linear);

struct BlockNorm {
  nn::Norm nn::Block::*member;
  std::string_view huggingface, gguf;
  int64_t features;
};
std::vector<BlockNorm> block_norms(const nn::BlockSpec& spec);

// Learned scales of a block's outputs, tensors of one number; GGUF has none.
struct BranchScale {
  nn::Tensor nn::Block::*member;
  std::string_view huggingface;
};
std::vector<BranchScale> branch_scales(const nn::BlockSpec& spec);

ModuleName block_module(size_t block, std::string_view huggingface, std::string_view gguf);

}  // namespace frugal::models
