// SmoothQuant, arXiv 2211.10438 (Xiao et al., 2022), equation 4: outliers of activations are moved into weights before both are
// quantized, s_j = max|X_j|^alpha / max|W_j|^(1-alpha) per input channel j, activations divided by s, columns multiplied.
// As the paper, at the inputs of attention (q, k, v) and of the MLP (gate, up), where s folds into the norm before; alpha 0.5.
// It is a transform and computes the same function; chain it with w8a8-dynamic, which quantizes.
//
// Different: a channel that is zero in the activations or in every weight keeps scale 1 (the paper's code clamps to 1e-5,
// which then scales the norm by 1e5 for nothing).
// Cost: one pass over the weights.
#include "quantize/smoothquant.h"

#include <ATen/ATen.h>

namespace frugal::quantize {
namespace {

void run(chain::BlockContext& context, const Options& options) {
  for (const nn::InputPoint point : {nn::InputPoint::attention_input, nn::InputPoint::mlp_input}) {
    std::vector<Tensor> weights;
    for (const chain::Matrix& matrix : context.matrices_at(point)) {
      if (!matrix.name.ends_with(".second")) weights.push_back(matrix.weight);  // of a low-rank product, what reads the input
    }
    if (weights.empty()) continue;  // the half was pruned away
    context.scale_input(point, smoothing_scale(context.statistics(point).abs_max, weights, options.number("alpha")));
  }
}

}  // namespace

Tensor smoothing_scale(const Tensor& abs_max, const std::vector<Tensor>& weights, double alpha) {
  Tensor weight_max = at::zeros_like(abs_max);
  for (const Tensor& weight : weights) weight_max = at::maximum(weight_max, weight.abs().amax(0));
  const Tensor scale = (abs_max.pow(alpha) / weight_max.pow(1 - alpha)).clamp(1e-5, 1e5);
  return at::where((abs_max > 0).logical_and(weight_max > 0), scale, at::ones_like(scale));
}

chain::StepRow smoothquant_row() {
  chain::StepRow row;
  row.id = "smoothquant";
  row.title = "SmoothQuant";
  row.leaf = "quantize";
  row.arxiv = "2211.10438";
  row.summary = "moves outliers of the activations into the weights, folded into the norms; before w8a8-dynamic";
  row.options = {number_option("alpha", 0.5, 0, 1, "share of the difficulty that moves into the weights")};
  row.function = {.effect = chain::StepEffect::transform, .needs = [](const Options&) -> unsigned { return chain::kNeedsMagnitude; }, .run_block = run};
  row.claims = {{.statement = "8-bit weights and activations: perplexity under naive W8A8",
                 .model = "S",
                 .baseline = {"w8a8-dynamic"},
                 .method = {"smoothquant", "w8a8-dynamic"}}};
  return row;
}

}  // namespace frugal::quantize
