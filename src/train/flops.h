// What training costs in floating-point operations, for model FLOP utilisation (PaLM, arXiv 2204.02311, appendix B): what the model needs, whatever the
// program does; what is computed twice to save memory is not counted.
//
// A matrix of N numbers costs a token 2 N forward, 2 N for the gradient of its input and, where it trains, 2 N for its own: 6 N, of a frozen one 4 N.
// Attention of a sequence of s tokens costs 12 * heads * head_dim * s a token and block: PaLM's count, which takes no notice of the causal half. The
// embedding is looked up and costs nothing; the head counts for the tokens that are learned, since the others do not pass it. Norms and what else is
// done number by number is left out, as are frozen matrices of an adapter (VeRA).
#pragma once

#include <cstdint>
#include <vector>

#include "nn/model.h"
#include "train/parameter.h"

namespace frugal::train {

struct TrainingFlops {
  double per_token = 0;        // matrices of the blocks and of what trains beside them
  double per_target = 0;       // the head
  int64_t virtual_tokens = 0;  // before each sequence
  struct Attention {
    double per_pair = 0;  // of a token and one that it may see
    int64_t window = 0;   // sliding; 0: none
  };
  std::vector<Attention> blocks;

  // Of one sequence with so many tokens of text.
  double of(int64_t text, int64_t targets) const;
};

// Everything trains.
TrainingFlops training_flops(const nn::Model& model);
// The model is frozen, and this trains beside its weights.
TrainingFlops training_flops(const nn::Model& model, const std::vector<Parameter>& adapter);

}  // namespace frugal::train
