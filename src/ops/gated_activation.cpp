#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "base/error.h"
#include "kernels/cpu/activation.h"
#include "ops/autocast.h"
#include "ops/into.h"

namespace frugal::ops {
namespace {

using torch::autograd::AutogradContext;

kernels::GateKind kernel_kind(Gate kind) { return kind == Gate::silu ? kernels::GateKind::silu : kernels::GateKind::gelu_tanh; }

// Rows of 16 bits are floats for so many at once.
constexpr int64_t kNumbersAtOnce = 1 << 20;

template <typename Work>
void for_parts(const Tensor& like, const Work& work) {
  const int64_t rows = like.size(0), step = std::max<int64_t>(1, kNumbersAtOnce / std::max<int64_t>(1, like.size(1)));
  for (int64_t begin = 0; begin < rows; begin += step) work(begin, std::min(step, rows - begin));
}

Tensor gated(const Tensor& gate, const Tensor& up, Gate kind, at::ScalarType type) {
  Tensor out = at::empty(gate.sizes(), type);
  if (type == at::kFloat) {
    gated_activation_into(gate, up, kind, out);
    return out;
  }
  for_parts(gate, [&](int64_t begin, int64_t count) {
    const Tensor u = up.narrow(0, begin, count).to(at::kFloat);
    Tensor g = gate.narrow(0, begin, count).to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
    gated_activation_into(g, u, kind, g);
    out.narrow(0, begin, count).copy_(g);
  });
  return out;
}

class GatedActivation : public torch::autograd::Function<GatedActivation> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& gate, const Tensor& up, int64_t kind) {
    const at::ScalarType type = activation_type(gate);
    const Tensor g = gate.to(type).contiguous(), u = up.to(type).contiguous();
    context->save_for_backward({g, u});
    context->saved_data["kind"] = kind;
    context->saved_data["gate_type"] = gate.scalar_type();
    context->saved_data["up_type"] = up.scalar_type();
    return gated(g, u, static_cast<Gate>(kind), type);
  }
  static torch::autograd::variable_list backward(AutogradContext* context, torch::autograd::variable_list gradients) {
    const auto saved = context->get_saved_variables();
    Tensor by_gate = at::empty(saved[0].sizes(), context->saved_data["gate_type"].toScalarType());
    Tensor by_up = at::empty(saved[1].sizes(), context->saved_data["up_type"].toScalarType());
    for_parts(saved[0], [&](int64_t begin, int64_t count) {
      const auto part = [&](const Tensor& x) { return checked_float(x.narrow(0, begin, count).to(at::kFloat), "gated activation"); };
      const auto target = [&](const Tensor& x) {
        return x.scalar_type() == at::kFloat ? x.narrow(0, begin, count) : at::empty({count, x.size(1)}, at::kFloat);
      };
      const Tensor g = part(saved[0]), u = part(saved[1]), gradient = part(gradients[0]), gate_gradient = target(by_gate), up_gradient = target(by_up);
      kernels::gated_activation_backward({.gate = g.const_data_ptr<float>(),
                                          .up = u.const_data_ptr<float>(),
                                          .gradient = gradient.const_data_ptr<float>(),
                                          .gate_gradient = gate_gradient.mutable_data_ptr<float>(),
                                          .up_gradient = up_gradient.mutable_data_ptr<float>(),
                                          .rows = count,
                                          .columns = g.size(1)},
                                         kernel_kind(static_cast<Gate>(context->saved_data["kind"].toInt())));
      if (by_gate.scalar_type() != at::kFloat) by_gate.narrow(0, begin, count).copy_(gate_gradient);
      if (by_up.scalar_type() != at::kFloat) by_up.narrow(0, begin, count).copy_(up_gradient);
    });
    return {by_gate, by_up, Tensor()};
  }
};

}  // namespace

Tensor gated_activation_reference(const Tensor& gate, const Tensor& up, Gate kind) {
  return (kind == Gate::silu ? at::silu(gate) : at::gelu(gate, "tanh")) * up;
}

Tensor gated_activation(const Tensor& gate, const Tensor& up, Gate kind) {
  const at::ScalarType type = activation_type(gate);
  return wants_gradient({gate, up}) ? GatedActivation::apply(gate, up, static_cast<int64_t>(kind)) : gated(gate.to(type), up.to(type), kind, type);
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
