#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "base/error.h"
#include "kernels/cpu/activation.h"
#include "ops/into.h"

namespace frugal::ops {
namespace {

using torch::autograd::AutogradContext;

kernels::GateKind kernel_kind(Gate kind) { return kind == Gate::silu ? kernels::GateKind::silu : kernels::GateKind::gelu_tanh; }

class GatedActivation : public torch::autograd::Function<GatedActivation> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& gate, const Tensor& up, int64_t kind) {
    const Tensor g = checked_float(gate, "gate"), u = checked_float(up, "up");
    context->save_for_backward({g, u});
    context->saved_data["kind"] = kind;
    Tensor out = at::empty(g.sizes(), at::kFloat);
    gated_activation_into(g, u, static_cast<Gate>(kind), out);
    return out;
  }
  static torch::autograd::variable_list backward(AutogradContext* context, torch::autograd::variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const Tensor gradient = checked_float(gradients[0], "gate gradient");
    Tensor by_gate = at::empty_like(saved[0]), by_up = at::empty_like(saved[1]);
    kernels::gated_activation_backward({.gate = saved[0].const_data_ptr<float>(),
                                        .up = saved[1].const_data_ptr<float>(),
                                        .gradient = gradient.const_data_ptr<float>(),
                                        .gate_gradient = by_gate.mutable_data_ptr<float>(),
                                        .up_gradient = by_up.mutable_data_ptr<float>(),
                                        .rows = saved[0].size(0),
                                        .columns = saved[0].size(1)},
                                       kernel_kind(static_cast<Gate>(context->saved_data["kind"].toInt())));
    return {by_gate, by_up, Tensor()};
  }
};

}  // namespace

Tensor gated_activation_reference(const Tensor& gate, const Tensor& up, Gate kind) {
  return (kind == Gate::silu ? at::silu(gate) : at::gelu(gate, "tanh")) * up;
}

Tensor gated_activation(const Tensor& gate, const Tensor& up, Gate kind) {
  if (wants_gradient({gate, up})) return GatedActivation::apply(gate, up, static_cast<int64_t>(kind));
  Tensor out = at::empty(gate.sizes(), at::kFloat);
  gated_activation_into(gate, up, kind, out);
  return out;
}

void gated_activation_into(const Tensor& gate, const Tensor& up, Gate kind, Tensor& out, RowRange range) {
  FRUGAL_ASSERT(gate.dim() == 2 && gate.sizes() == up.sizes() && out.numel() == gate.numel());
  const Tensor g = checked_float(gate, "gate"), u = checked_float(up, "up");
  const int64_t columns = g.size(1), first = range.begin * columns;
  kernels::gated_activation({.gate = g.const_data_ptr<float>() + first,
                             .up = u.const_data_ptr<float>() + first,
                             .out = out.mutable_data_ptr<float>() + first,
                             .rows = std::min(range.end, g.size(0)) - range.begin,
                             .columns = columns},
                            kernel_kind(kind));
}

}  // namespace frugal::ops
