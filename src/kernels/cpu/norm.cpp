#include "kernels/cpu/norm.h"

#include <algorithm>

#include "base/error.h"
#include "base/team.h"
#include "kernels/cpu/kernel_table.h"

namespace frugal::kernels {
namespace {

// Below about 32 k values the fork and join cost more than the work.
constexpr int64_t kGrainValues = 16384;

NormArguments arguments_of(const NormRows& rows, const float* weight, const float* bias, const NormOptions& options) {
  NormArguments a;
  a.x = rows.x;
  a.stride = rows.stride == 0 ? rows.columns : rows.stride;
  a.out = rows.out;
  a.out_stride = rows.out_stride == 0 ? rows.columns : rows.out_stride;
  a.columns = rows.columns;
  a.weight = weight;
  a.bias = bias;
  a.eps = options.eps;
  a.weight_offset = options.weight_offset;
  if (rows.rows < 0 || rows.columns < 1 || a.stride < rows.columns || a.out_stride < rows.columns) {
    fail(ErrorKind::invalid_input, "norm: {} rows of {} columns, strides {} and {}", rows.rows, rows.columns, a.stride, a.out_stride);
  }
  return a;
}

}  // namespace

void rms_norm(const NormRows& rows, const float* weight, const NormOptions& options) {
  const NormArguments a = arguments_of(rows, weight, nullptr, options);
  parallel_for(rows.rows, std::max<int64_t>(1, kGrainValues / rows.columns), [&](int64_t begin, int64_t end) { kernels().rms_norm(a, begin, end); });
}

void layer_norm(const NormRows& rows, const float* weight, const float* bias, const NormOptions& options) {
  const NormArguments a = arguments_of(rows, weight, bias, options);
  parallel_for(rows.rows, std::max<int64_t>(1, kGrainValues / rows.columns), [&](int64_t begin, int64_t end) { kernels().layer_norm(a, begin, end); });
}

}  // namespace frugal::kernels
