#include "ops/packed_linear.h"

#include <ATen/ATen.h>

#include "kernels/cpu/float_matmul.h"
#include "ops/ops.h"

namespace frugal::ops {

using formats::ActivationQuant;

std::unique_ptr<QuantizedActivations> quantize_activations(const at::Tensor& x, const ActivationQuant& quant) {
  kernels::QuantizeOptions options;
  if (quant.kind == ActivationQuant::Kind::per_token) options.mode = kernels::ActivationScale::per_token;
  if (quant.kind == ActivationQuant::Kind::per_tensor) options = {kernels::ActivationScale::per_tensor, quant.scale};
  const at::Tensor input = checked_float(x, "activation");
  auto form = std::make_unique<QuantizedActivations>();
  form->quantize(input.const_data_ptr<float>(), input.size(0), input.size(1), input.size(1), options);
  return form;
}

std::vector<at::Tensor> packed_linear(std::span<const PackedMatrix* const> matrices, const QuantizedActivations& activations) {
  std::vector<at::Tensor> outputs;
  std::vector<kernels::PackedProduct> products;
  for (const PackedMatrix* matrix : matrices) {
    outputs.push_back(at::empty({activations.tokens(), matrix->rows()}, at::kFloat));
    products.push_back({matrix, outputs.back().mutable_data_ptr<float>(), matrix->rows()});
  }
  kernels::matmul_packed(products, activations);
  return outputs;
}

at::Tensor float_linear(const at::Tensor& x, const at::Tensor& weight, bool invariant) {
  if (!invariant || wants_gradient({x, weight})) return at::linear(x, weight.to(at::kFloat));
  const at::Tensor input = checked_float(x, "linear input");
  at::Tensor out = at::empty({input.size(0), weight.size(0)}, at::kFloat);
  const at::ScalarType type = weight.scalar_type();
  kernels::matmul_float({.data = weight.const_data_ptr(),
                         .type = type == at::kFloat  ? kernels::FloatType::f32
                                 : type == at::kHalf ? kernels::FloatType::f16
                                                     : kernels::FloatType::bf16,
                         .rows = weight.size(0),
                         .columns = weight.size(1)},
                        {.x = input.const_data_ptr<float>(), .tokens = input.size(0), .out = out.mutable_data_ptr<float>()});
  return out;
}

}  // namespace frugal::ops
