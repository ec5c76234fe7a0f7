#include "train/clip.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"
#include "base/team.h"
#include "train/per_parameter.h"

namespace frugal::train {
namespace {

constexpr int64_t kBlock = 1 << 14;

// In eight sums, that the compiler may keep them in registers of any width.
double block_sum(const float* numbers, int64_t count) {
  std::array<double, 8> sums{};
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    for (int64_t lane = 0; lane < 8; ++lane) sums[lane] += static_cast<double>(numbers[i + lane]) * numbers[i + lane];
  }
  double sum = 0;
  for (; i < count; ++i) sum += static_cast<double>(numbers[i]) * numbers[i];
  for (const double part : sums) sum += part;
  return sum;
}

std::vector<at::Tensor> gradients_of(const std::vector<Parameter>& parameters) {
  std::vector<at::Tensor> gradients;
  for (const Parameter& parameter : parameters) {
    if (at::Tensor gradient = gradient_of(parameter); gradient.defined()) gradients.push_back(std::move(gradient));
  }
  return gradients;
}

}  // namespace

double sum_of_squares(std::span<const at::Tensor> tensors) {
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
    for (int64_t i = begin; i < end; ++i) sums[i] = block_sum(blocks[i].numbers, blocks[i].count);
  });
  double sum = 0;
  for (const double part : sums) sum += part;
  return sum;
}

double gradient_norm(const std::vector<Parameter>& parameters) { return std::sqrt(sum_of_squares(gradients_of(parameters))); }

double clip_gradients(const std::vector<Parameter>& parameters, double max_norm) {
  if (!(max_norm > 0)) fail(ErrorKind::invalid_input, "max_grad_norm must be above 0, is {}", max_norm);
  const double norm = gradient_norm(parameters);
  const double scale = max_norm / (norm + 1e-6);
  if (std::isfinite(norm) && scale < 1) {
    const c10::NoGradGuard guard;
    for (const Parameter& parameter : parameters) {
      if (parameter.tensor.grad().defined()) parameter.tensor.mutable_grad().mul_(scale);
    }
  }
  return norm;
}

}  // namespace frugal::train
