#include "nn/sharing.h"

#include <algorithm>

namespace frugal::nn {

Sharing sharing_of(const ModelSpec& spec) {
  if (spec.family == "mobilellm") return {.repeats = 2};
  if (spec.family == "mobillama") return {.one_mlp = true};
  return {};
}

std::vector<Linear*> own_linears(Block& block, size_t index, const Sharing& sharing) {
  if (!sharing.owns(index)) return {};
  std::vector<Linear*> linears = block.linears();
  if (!sharing.owns_mlp(index))
    std::erase_if(linears, [&](const Linear* linear) { return linear == &block.gate || linear == &block.up || linear == &block.down; });
  return linears;
}

void share_weights(Model& model) {
  const Sharing sharing = sharing_of(model.spec);
  for (size_t i = 0; i < model.blocks.size(); ++i) {
    Block& block = model.blocks[i];
    if (!sharing.owns(i)) {
      Block shared = model.blocks[i - 1];
      shared.spec = block.spec;
      shared.prefix = block.prefix;
      block = std::move(shared);
    } else if (!sharing.owns_mlp(i)) {
      const Block& first = model.blocks.front();
      block.gate = first.gate;
      block.up = first.up;
      block.down = first.down;
    }
  }
}

}  // namespace frugal::nn
