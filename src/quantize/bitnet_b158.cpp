// BitNet b1.58, arXiv 2402.17764 (Ma et al., 2024): from the first step on, every matrix of the blocks is {-1, 0, 1} times its mean magnitude
// (equations 1 to 3), its input is rounded to 8 bits per token, and gradients pass both roundings straight through to float32 weights. SubLN
// (arXiv 2310.11453, section 2.1) is a norm before the output projections of attention and MLP, beside Llama's two, as BitNetForCausalLM has it.
// Embedding, head and norms stay floats.
//
// What differs from the paper: activations are scaled to [-127, 127] by their largest magnitude, as all kernels here and transformers' AutoBitLinear do
// it; learning rate and weight decay follow the run's one schedule in place of two stages.
// Stored are codes of 2 bits with one scale a matrix (repeated for each row, which is what the integer kernels read): what is served computes what was
// trained. Cost over full training: two passes over the weights a micro-batch.
#include "quantize/bitnet_b158.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "base/error.h"
#include "nn/round_activation.h"
#include "train/full_parameters.h"
#include "train/trained_kind.h"

namespace frugal::quantize {
namespace {

using at::Tensor;

constexpr double kSmallestMean = 1e-5;
constexpr int kZero = 2;  // the code of 0

constexpr formats::ActivationQuant kActivation{.kind = formats::ActivationQuant::Kind::per_token, .bits = 8};

std::vector<train::Parameter> begin(nn::Model& model, const Options&) {
  std::vector<train::Parameter> parameters = train::all_parameters(model);
  for (nn::Block& block : model.blocks) {
    for (nn::Linear* linear : block.linears()) {
      const Tensor weight = dynamic_cast<const nn::DenseKind&>(*linear->kinds().front()).weight();
      train::TrainedKind::Form form;
      form.weight = [weight] { return ternary_weight(weight); };
      form.input = [](const Tensor& x) { return nn::round_activation(x, kActivation); };
      linear->replace(std::make_shared<train::TrainedKind>(linear->out_features(), linear->in_features(), std::move(form)));
    }
  }
  return parameters;
}

void store(nn::Model& model, const Options&) {
  for (nn::Block& block : model.blocks) {
    for (nn::Linear* linear : block.linears()) {
      auto codes = std::make_shared<formats::GroupedWeight>(ternary_codes(linear->dense()));
      formats::validate(*codes, linear->name());
      linear->replace(std::make_shared<nn::GroupedKind>(std::move(codes), kActivation));
    }
  }
}

}  // namespace

Tensor ternary_weight(const Tensor& weight) {
  const Tensor scale = weight.detach().abs().mean().clamp_min(kSmallestMean);
  return train::straight_through(at::round(weight.detach() / scale).clamp_(-1, 1) * scale, weight);
}

formats::GroupedWeight ternary_codes(const Tensor& ternary) {
  formats::GroupedWeight packed = formats::make_grouped({ternary.size(0), ternary.size(1), /*bits=*/2, /*group_size=*/ternary.size(1), /*symmetric=*/true});
  const Tensor scale = ternary.abs().amax();
  packed.scale_format = "F32";
  packed.scales.assign(packed.scales.size(), std::max(scale.item<float>(), static_cast<float>(kSmallestMean)));
  const Tensor codes = (ternary.sign() + kZero).to(at::kByte).contiguous();
  for (int64_t row = 0; row < packed.rows; ++row) formats::pack_row(packed, row, codes.const_data_ptr<uint8_t>() + row * packed.columns);
  return packed;
}

TrainedQuantizationRow bitnet_b158_row() {
  TrainedQuantizationRow row;
  row.id = "bitnet-b158";
  row.title = "BitNet b1.58";
  row.leaf = "quantize";
  row.arxiv = "2402.17764";
  row.summary = "weights -1, 0, 1 and inputs of 8 bits, trained so from the first step";
  row.function = {.begin = begin, .store = store, .sub_norms = true};
  row.reference = "docs/train.md has figures against rounding; no runner trains a form from the first step";
  return row;
}

const MethodTable<TrainedQuantization>& trained_quantization_table() {
  static const MethodTable<TrainedQuantization> table({bitnet_b158_row()});
  return table;
}

}  // namespace frugal::quantize
