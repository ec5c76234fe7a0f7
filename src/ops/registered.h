// What the registrations of the operators share.
#pragma once

#include <string_view>
#include <vector>

#include "ops/ops.h"

namespace frugal::ops {

// Throws Error{invalid_input} unless `name` is silu or gelu_tanh.
Gate gate_of(std::string_view name);
// `lengths`: of the sequences that the rows of q hold one after the other. Throws Error{invalid_input} unless they add up to the rows.
std::vector<AttentionRange> ranges_of(const Tensor& q, at::IntArrayRef lengths);

}  // namespace frugal::ops
