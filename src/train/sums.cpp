#include "train/sums.h"

#include <algorithm>
#include <vector>

#include "base/team.h"

namespace frugal::train {

double sum_of_squares(std::span<const at::Tensor> tensors) {
  constexpr int64_t kBlock = 1 << 14;
  struct Block {
    const float* numbers;
    int64_t count;
  };
  std::vector<Block> blocks;
  for (const at::Tensor& tensor : tensors) {
    const float* numbers = tensor.const_data_ptr<float>();
    for (int64_t first = 0; first < tensor.numel(); first += kBlock) blocks.push_back({numbers + first, std::min(kBlock, tensor.numel() - first)});
  }
  std::vector<double> sums(blocks.size());
  parallel_for(static_cast<int64_t>(blocks.size()), 2, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float* x = blocks[i].numbers;
      sums[i] = lane_sum(blocks[i].count, [=](int64_t k) { return static_cast<double>(x[k]) * x[k]; });
    }
  });
  double sum = 0;
  for (const double part : sums) sum += part;
  return sum;
}

}  // namespace frugal::train
