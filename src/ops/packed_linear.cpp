#include "ops/packed_linear.h"

#include <ATen/ATen.h>

#include "base/error.h"
#include "kernels/cpu/float_matmul.h"
#include "ops/autocast.h"
#include "ops/gemm.h"
#include "ops/into.h"

namespace frugal::ops {

using formats::ActivationQuant;

std::unique_ptr<QuantizedActivations> quantize_activations(const at::Tensor& x, const ActivationQuant& quant) {
  auto form = std::make_unique<QuantizedActivations>();
  quantize_into(x, quant, *form);
  return form;
}

void quantize_into(const Tensor& x, const ActivationQuant& quant, QuantizedActivations& out, const RowWork& make) {
  kernels::QuantizeOptions options;
  if (quant.kind == ActivationQuant::Kind::per_token) options.mode = kernels::ActivationScale::per_token;
  if (quant.kind == ActivationQuant::Kind::per_tensor) options = {kernels::ActivationScale::per_tensor, quant.scale};
  const at::Tensor input = checked_float(x, "activation");
  const int64_t columns = input.size(-1);
  const auto rows = [&](int64_t begin, int64_t end) { make({begin, end}); };
  out.quantize(input.const_data_ptr<float>(), columns == 0 ? 0 : input.numel() / columns, columns, columns, options,
               make ? QuantizedActivations::RowMaker(rows) : QuantizedActivations::RowMaker());
}

at::Tensor packed_linear(const PackedMatrix& matrix, const QuantizedActivations& activations) {
  at::Tensor out = at::empty({activations.tokens(), matrix.rows()}, at::kFloat);
  const PackedMatrix* const one = &matrix;
  at::Tensor* const target = &out;
  packed_linear_into(std::span(&one, 1), activations, std::span(&target, 1));
  return out;
}

void packed_linear_into(std::span<const PackedMatrix* const> matrices, const QuantizedActivations& activations, std::span<Tensor* const> outputs) {
  FRUGAL_ASSERT(matrices.size() == outputs.size());
  std::vector<kernels::PackedProduct> products;
  for (size_t i = 0; i < matrices.size(); ++i) {
    FRUGAL_ASSERT(outputs[i]->is_contiguous() && outputs[i]->numel() == activations.tokens() * matrices[i]->rows());
    products.push_back({matrices[i], outputs[i]->mutable_data_ptr<float>(), matrices[i]->rows()});
  }
  kernels::matmul_packed(products, activations);
}

at::Tensor float_linear(const at::Tensor& x, const at::Tensor& weight, bool invariant) {
  if (wants_gradient({x, weight}) || activation_type(x) != at::kFloat) return dense_linear(x, weight.to(at::kFloat));
  if (!invariant) return at::linear(x, weight.to(at::kFloat));
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
