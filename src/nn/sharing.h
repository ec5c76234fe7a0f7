// Blocks that use the weights of others. Which do is what the family says: a block's own part of a model is stored, trained and counted once, its
// keys and values are its own.
#pragma once

#include <vector>

#include "nn/model.h"

namespace frugal::nn {

struct Sharing {
  size_t repeats = 1;    // so many blocks in a row have the weights of the first of them (MobileLLM-LS, arXiv 2402.14905)
  bool one_mlp = false;  // all have the MLP's matrices of the first one (MobiLlama, arXiv 2402.16840)

  bool any() const { return repeats > 1 || one_mlp; }
  bool owns(size_t block) const { return block % repeats == 0; }
  bool owns_mlp(size_t block) const { return owns(block) && (!one_mlp || block == 0); }
  size_t stored(size_t block) const { return block / repeats; }  // its number among those that are stored
};

Sharing sharing_of(const ModelSpec& spec);

// Of the block's Linears those that are its own.
std::vector<Linear*> own_linears(Block& block, size_t index, const Sharing& sharing);

// Gives the blocks that share what those have whose weights they use.
void share_weights(Model& model);

}  // namespace frugal::nn
