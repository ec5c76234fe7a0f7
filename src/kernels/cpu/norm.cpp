#include "kernels/cpu/norm.h"

#include <algorithm>
#include <vector>

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

void rms_norm_backward(const NormGradients& rows, const float* weight, const NormOptions& options) {
  constexpr int64_t kBlock = 32;
  if (rows.rows < 0 || rows.columns < 1) fail(ErrorKind::invalid_input, "norm: {} rows of {} columns", rows.rows, rows.columns);
  const NormGradientArguments a{rows.x, rows.gradient, rows.x_gradient, weight, rows.columns, options.eps, options.weight_offset};
  const int64_t blocks = (rows.rows + kBlock - 1) / kBlock;
  std::vector<float> sums(rows.weight_gradient == nullptr ? 0 : static_cast<size_t>(blocks * rows.columns));
  parallel_for(blocks, std::max<int64_t>(1, kGrainValues / (kBlock * rows.columns)), [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      float* sum = sums.empty() ? nullptr : sums.data() + block * rows.columns;
      kernels().rms_norm_backward(a, sum, block * kBlock, std::min(rows.rows, (block + 1) * kBlock));
    }
  });
  for (int64_t block = 0; block < blocks && rows.weight_gradient != nullptr; ++block) {
    for (int64_t c = 0; c < rows.columns; ++c) rows.weight_gradient[c] += sums[static_cast<size_t>(block * rows.columns + c)];
  }
}

void layer_norm(const NormRows& rows, const float* weight, const float* bias, const NormOptions& options) {
  const NormArguments a = arguments_of(rows, weight, bias, options);
  parallel_for(rows.rows, std::max<int64_t>(1, kGrainValues / rows.columns), [&](int64_t begin, int64_t end) { kernels().layer_norm(a, begin, end); });
}

}  // namespace frugal::kernels
