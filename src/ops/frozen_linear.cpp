#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/custom_class.h>

#include "ops/autocast.h"
#include "ops/gemm.h"
#include "ops/packed_linear.h"

namespace frugal::ops {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;

struct WeightMaker : torch::CustomClassHolder {
  explicit WeightMaker(std::function<Tensor()> make) : weight(std::move(make)) {}
  std::function<Tensor()> weight;
};

class FrozenLinear : public torch::autograd::Function<FrozenLinear> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& x, const c10::intrusive_ptr<WeightMaker>& maker) {
    const at::ScalarType type = activation_type(x);
    context->saved_data["maker"] = c10::IValue::make_capsule(maker);
    context->saved_data["input_type"] = x.scalar_type();
    return gemm(x, maker->weight().t(), type).to(type);
  }
  static torch::autograd::variable_list backward(AutogradContext* context, torch::autograd::variable_list gradients) {
    const auto maker = c10::static_intrusive_pointer_cast<WeightMaker>(context->saved_data["maker"].toCapsule());
    const Tensor& gradient = gradients[0];
    return {gemm(gradient, maker->weight(), gradient.scalar_type()).to(context->saved_data["input_type"].toScalarType()), Tensor()};
  }
};

}  // namespace

Tensor frozen_linear(const Tensor& x, std::function<Tensor()> weight) { return FrozenLinear::apply(x, c10::make_intrusive<WeightMaker>(std::move(weight))); }

}  // namespace frugal::ops
