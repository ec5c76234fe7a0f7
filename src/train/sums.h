// Sums of many numbers, in double, that do not depend on the number of threads.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <span>

namespace frugal::train {

// Of term(i) for every i < count, in one thread: eight sums, that the compiler may keep them in registers of any width.
template <typename Term>
double lane_sum(int64_t count, const Term& term) {
  std::array<double, 8> sums{};
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    for (int64_t lane = 0; lane < 8; ++lane) sums[lane] += term(i + lane);
  }
  double sum = 0;
  for (; i < count; ++i) sum += term(i);
  for (const double part : sums) sum += part;
  return sum;
}

// Of the squares of all numbers: blocks of fixed size are summed by themselves, on the compute team, then their sums in order.
// Tensors are contiguous float32 on the CPU.
double sum_of_squares(std::span<const at::Tensor> tensors);

}  // namespace frugal::train
