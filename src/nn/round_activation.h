// What a layer that quantizes its input computes with: the input on the grid of `quant`.
#pragma once

#include <ATen/core/Tensor.h>

#include "formats/activation_quant.h"

namespace frugal::nn {

// x [..., features] rounded along features, per token or tensor, in float; the gradient passes straight through (arXiv 1308.3432). x itself for
// ActivationQuant::Kind::none.
at::Tensor round_activation(const at::Tensor& x, const formats::ActivationQuant& quant);

}  // namespace frugal::nn
