// LLM-QAT, arXiv 2305.17888 (Liu et al., 2023). Training goes on with the weights, the inputs of matrices and the keys and values rounded in the
// forward pass (section 2.2), gradients pass the rounding straight through, and the model before the step is the teacher, by its logits (equation 6).
// data=generated is section 2.1: the text is what the teacher writes.
//
// What differs from the paper: weights are on rtn's grids, since the stored format is rtn's (the paper's symmetric channels are
// group=0,symmetric=true). Keys are rounded before they are rotated, as in the authors' program, and per head, as the cache does it. The embedding, the
// head and biases are neither quantized nor trained; norms are trained.
// Cost: a forward and a backward pass of a float model a micro-batch, a forward pass of the teacher, and one rounding of all weights. Peak memory: the
// model and its teacher as floats, 16 bytes a weight of the blocks.
#include "quantize/qat_ste.h"

#include <ATen/ATen.h>

#include "base/error.h"
#include "nn/round_activation.h"

namespace frugal::quantize {
namespace {

using at::Tensor;
using formats::ActivationQuant;

ActivationQuant per_token(int64_t bits) {
  return bits == 0 ? ActivationQuant{} : ActivationQuant{.kind = ActivationQuant::Kind::per_token, .bits = static_cast<int>(bits)};
}

FakeQuantization quantization_of(const Options& options) {
  const int64_t bits = options.integer("activation_bits");
  if (bits == 1) fail(ErrorKind::invalid_input, "qat-ste: activation_bits must be 0 or 2..8, is 1");
  return {chain::grid_spec(options), per_token(bits), per_token(options.text("kv_bits") == "8" ? 8 : 0)};
}

// Rounds what the cache will hold of a product: each head of a token has a scale.
std::function<Tensor(const Tensor&)> rounded_heads(const nn::Linear& linear, int64_t heads, const ActivationQuant& quant) {
  return [bias = linear.bias(), heads, quant](const Tensor& product) {
    const Tensor whole = bias.defined() ? product + bias : product;
    const Tensor rounded = nn::round_activation(whole.view({whole.size(0), heads, -1}), quant).view(whole.sizes());
    return bias.defined() ? rounded - bias : rounded;
  };
}

void run(chain::Workbench& bench, const Options& options) {
  const FakeQuantization quantization = quantization_of(options);
  const bool has_teacher = train::chain_training_has_teacher(options);
  nn::Model teacher;
  if (has_teacher) teacher = bench.model;  // shares the weights
  train::TrainedBlocks trained = train::train_blocks(bench.model, fake_quantization(quantization));
  std::vector<train::Parameter> parameters = trained.norms;
  for (const chain::Matrix& matrix : trained.matrices) parameters.push_back({matrix.name + ".weight", matrix.weight.requires_grad_()});
  if (!bench.rehearsal) train::train_in_chain(bench, options, parameters, has_teacher ? &teacher : nullptr);
  parameters.clear();
  for (chain::Matrix& matrix : trained.matrices) {
    matrix.store_grouped(chain::round_to_grid(matrix.weight.detach(), matrix.mask, quantization.grid).pack(), quantization.activation);
    matrix = {};  // the float weights and their gradients go
  }
  train::end_training(bench.model);
}

}  // namespace

Tensor fake_quantized(const Tensor& weight, const Tensor& mask, const chain::GridSpec& grid) {
  const Tensor rounded = train::straight_through(chain::rounded_to_grid(weight.detach(), mask, grid), weight);
  return mask.defined() ? rounded * mask : rounded;
}

train::FormOf fake_quantization(FakeQuantization options) {
  return [options](nn::Block& block, const chain::Matrix& matrix) {
    train::TrainedKind::Form form;
    form.weight = [weight = matrix.weight, mask = matrix.mask, grid = options.grid] { return fake_quantized(weight, mask, grid); };
    if (options.activation.kind != ActivationQuant::Kind::none)
      form.input = [quant = options.activation](const Tensor& x) { return nn::round_activation(x, quant); };
    if (options.cache.kind == ActivationQuant::Kind::none) return form;
    for (const nn::Linear* linear : {&block.key, &block.value}) {
      if (*linear && (matrix.name == linear->name() || matrix.name == linear->name() + ".second"))
        form.output = rounded_heads(*linear, block.spec.kv_heads, options.cache);
    }
    return form;
  };
}

chain::StepRow qat_ste_row() {
  chain::StepRow row;
  row.id = "qat-ste";
  row.title = "LLM-QAT";
  row.leaf = "quantize";
  row.arxiv = "2305.17888";
  row.summary = "trains on with weights, inputs and KV rounded, taught by the logits of the model before";
  row.options = chain::grid_options(4);
  row.options.push_back(integer_option("activation_bits", 0, 0, 8, "bits of an input of the matrices, per token; 0: as they are"));
  row.options.push_back(choice_option("kv_bits", "16", {"16", "8"}, "8: keys and values are rounded as --cache-type-k q8_0 does it"));
  for (OptionSpec& option : train::chain_training_options(/*learning_rate=*/2e-5, /*distillation=*/1)) row.options.push_back(std::move(option));
  row.function = {.scope = chain::StepScope::model, .effect = chain::StepEffect::quantize, .needs = train::chain_training_needs, .run_model = run};
  row.claims = {{.statement = "3 bits in groups of 64: perplexity under round to nearest",
                 .model = "S",
                 .baseline = {"rtn:bits=3,group=64"},
                 .method = {"qat-ste:bits=3,group=64"}},
                {.statement = "weights and inputs of 4 bits: perplexity under round to nearest",
                 .model = "S",
                 .baseline = {"w8a8-dynamic:bits=4,activation_bits=4"},
                 .method = {"qat-ste:bits=4,group=0,symmetric=true,activation_bits=4"}}};
  return row;
}

}  // namespace frugal::quantize
