#include "kernels/cpu/float_matmul.h"

#include <algorithm>

#include "base/error.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/work_queue.h"

namespace frugal::kernels {

void matmul_float(const FloatMatrix& weight, const FloatProduct& product) {
  FloatArguments a;
  a.weight = weight.data;
  a.type = weight.type;
  a.weight_stride = weight.stride == 0 ? weight.columns : weight.stride;
  a.columns = weight.columns;
  a.x = product.x;
  a.x_stride = product.x_stride == 0 ? weight.columns : product.x_stride;
  a.tokens = product.tokens;
  a.out = product.out;
  a.out_stride = product.out_stride == 0 ? weight.rows : product.out_stride;
  a.accumulate = product.accumulate;
  if (weight.rows < 0 || weight.columns < 0 || product.tokens < 0 || a.weight_stride < weight.columns || a.x_stride < weight.columns ||
      a.out_stride < weight.rows) {
    fail(ErrorKind::invalid_input, "float product: {} x {} (stride {}), {} tokens (stride {}), out stride {}", weight.rows, weight.columns, a.weight_stride,
         product.tokens, a.x_stride, a.out_stride);
  }
  // Chunks of 32 rows keep a block of weights in the L2 cache; fewer for few tokens would only cost more atomics.
  const int64_t work = weight.columns * std::max<int64_t>(1, product.tokens);
  for_each_chunk(weight.rows, 32, work * weight.rows > 65536, [&](int64_t begin, int64_t end) { kernels().matmul_float(a, begin, end); });
}

}  // namespace frugal::kernels
