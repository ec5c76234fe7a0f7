#include "models/row_order.h"

#include <cstring>

#include "base/error.h"

namespace frugal::models {

std::vector<int64_t> split_from_interleaved(int64_t rows, int64_t head_dim) {
  std::vector<int64_t> order(static_cast<size_t>(rows));
  const int64_t half = head_dim / 2;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t head = row / head_dim, inside = row % head_dim;
    order[static_cast<size_t>(row)] = head * head_dim + 2 * (inside % half) + inside / half;
  }
  return order;
}

std::vector<int64_t> interleaved_from_split(int64_t rows, int64_t head_dim) {
  const std::vector<int64_t> inverse = split_from_interleaved(rows, head_dim);
  std::vector<int64_t> order(inverse.size());
  for (size_t row = 0; row < inverse.size(); ++row) order[static_cast<size_t>(inverse[row])] = static_cast<int64_t>(row);
  return order;
}

void reorder_rows(std::span<const std::byte> source, std::span<const int64_t> order, std::span<std::byte> target) {
  FRUGAL_ASSERT(!order.empty() && source.size() % order.size() == 0 && target.size() == source.size());
  const size_t size = source.size() / order.size();
  for (size_t row = 0; row < order.size(); ++row) std::memcpy(&target[row * size], &source[static_cast<size_t>(order[row]) * size], size);
}

}  // namespace frugal::models
