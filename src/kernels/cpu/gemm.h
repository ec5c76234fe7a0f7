// Products of float matrices in any arrangement, for training: c = alpha * a b (+ c). Packed panels and a register tile as in BLIS (Van Zee and van de
// Geijn, ACM TOMS 2015). Every number of c is summed over k in one order, whatever the other dimensions and the number of threads.
//
// Operands of 16 bits become float32 as they are packed, and sums are float32: what a unit for 16-bit matrices gives, on machines that have none.
#pragma once

#include <cstdint>

#include "kernels/cpu/float_matmul.h"

namespace frugal::kernels {

// Element (i, j) is at data[i * row_stride + j * column_stride]: a transposed matrix is the same memory with its strides exchanged.
struct MatrixView {
  const void* data = nullptr;
  int64_t row_stride = 0, column_stride = 1;
  FloatType type = FloatType::f32;
};

struct Gemm {
  int64_t m = 0, n = 0, k = 0;
  MatrixView a;        // [m, k]
  MatrixView b;        // [k, n]
  float* c = nullptr;  // [m, n]
  int64_t c_stride = 0;
  float alpha = 1;
  bool accumulate = false;               // adds to c; else overwrites it
  FloatType precision = FloatType::f32;  // what the numbers of a and b are rounded to
};

// On the compute team. Throws Error{invalid_input} for negative sizes, Error{out_of_memory}.
void gemm(const Gemm& arguments);

}  // namespace frugal::kernels
