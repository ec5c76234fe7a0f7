#pragma once

#include "chain/grid.h"
#include "train/chain_training.h"

namespace frugal::quantize {

// How a matrix computes while LLM-QAT trains it: weights on the grid that they will be stored on, inputs rounded per token, keys and values per head.
struct FakeQuantization {
  chain::GridSpec grid;
  formats::ActivationQuant activation;
  formats::ActivationQuant cache;  // of keys and values
};
// `mask`: as chain::Matrix has it. The value of weights is exactly what round_to_grid decodes to; the gradient passes straight through.
at::Tensor fake_quantized(const at::Tensor& weight, const at::Tensor& mask, const chain::GridSpec& grid);
train::FormOf fake_quantization(FakeQuantization options);

chain::StepRow qat_ste_row();

}  // namespace frugal::quantize
