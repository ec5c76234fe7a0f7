#include <ATen/ATen.h>

#include <algorithm>

#include "base/error.h"
#include "kernels/cpu/activation.h"
#include "ops/into.h"

namespace frugal::ops {

Tensor gated_activation_reference(const Tensor& gate, const Tensor& up, Gate kind) {
  return (kind == Gate::silu ? at::silu(gate) : at::gelu(gate, "tanh")) * up;
}

Tensor gated_activation(const Tensor& gate, const Tensor& up, Gate kind) {
  if (wants_gradient({gate, up})) return gated_activation_reference(gate, up, kind);
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
                            kind == Gate::silu ? kernels::GateKind::silu : kernels::GateKind::gelu_tanh);
}

}  // namespace frugal::ops
