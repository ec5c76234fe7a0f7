#include "kernels/cpu/activation.h"

#include <algorithm>

#include "base/error.h"
#include "base/team.h"
#include "kernels/cpu/kernel_table.h"

namespace frugal::kernels {
namespace {

// A vector of 8 takes about 10 ns with an exponential: below 8 k values the fork and join cost more than the work.
int64_t grain(int64_t columns) { return std::max<int64_t>(1, 8192 / std::max<int64_t>(1, columns)); }

void check(int64_t rows, int64_t columns) {
  if (rows < 0 || columns < 0) fail(ErrorKind::invalid_input, "activation: {} rows of {} columns", rows, columns);
}

}  // namespace

void gated_activation(const GateRows& rows, GateKind kind) {
  check(rows.rows, rows.columns);
  GateRows r = rows;
  if (r.gate_stride == 0) r.gate_stride = r.columns;
  if (r.up_stride == 0) r.up_stride = r.columns;
  if (r.out_stride == 0) r.out_stride = r.columns;
  if (r.gate_stride < r.columns || r.up_stride < r.columns || r.out_stride < r.columns) {
    fail(ErrorKind::invalid_input, "activation: strides {}, {}, {} for {} columns", r.gate_stride, r.up_stride, r.out_stride, r.columns);
  }
  parallel_for(r.rows, grain(r.columns), [&](int64_t begin, int64_t end) { kernels().gated_activation(r, kind, begin, end); });
}

void gated_activation_backward(const GateGradientRows& rows, GateKind kind) {
  check(rows.rows, rows.columns);
  FRUGAL_ASSERT(kind == GateKind::silu || kind == GateKind::gelu_tanh);
  parallel_for(rows.rows, grain(rows.columns), [&](int64_t begin, int64_t end) { kernels().gated_activation_backward(rows, kind, begin, end); });
}

void softmax(const float* x, float* out, int64_t rows, int64_t columns) {
  check(rows, columns);
  parallel_for(rows, grain(columns), [&](int64_t begin, int64_t end) { kernels().softmax(x, out, columns, begin, end); });
}

void log_softmax(const float* x, float* out, int64_t rows, int64_t columns) {
  check(rows, columns);
  parallel_for(rows, grain(columns), [&](int64_t begin, int64_t end) { kernels().log_softmax(x, out, columns, begin, end); });
}

void exponential(const float* x, float* out, int64_t count) {
  check(1, count);
  kernels().exponential(x, out, count);
}

}  // namespace frugal::kernels
