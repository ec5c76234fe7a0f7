#include "chain/weights.h"

#include <ATen/ATen.h>

#include "base/error.h"

namespace frugal::chain {

formats::SparseWeight sparse_pattern(const at::Tensor& mask, int n, int m) {
  FRUGAL_ASSERT(mask.dim() == 2 && mask.scalar_type() == at::kBool);
  formats::SparseWeight sparse;
  sparse.rows = mask.size(0);
  sparse.columns = mask.size(1);
  // A row that m does not divide, or a pattern that only holds approximately, is stored as a bitmap.
  if (n > 0 && m > 0 && sparse.columns % m == 0) {
    const at::Tensor counts = mask.view({sparse.rows, sparse.columns / m, m}).sum(-1);
    if (counts.eq(n).all().item<bool>()) {
      sparse.pattern = formats::SparsePattern::n_of_m;
      sparse.n = n;
      sparse.m = m;
    }
  }
  const int64_t row_bytes = (sparse.columns + 7) / 8;
  sparse.mask.assign(static_cast<size_t>(sparse.rows * row_bytes), 0);
  const at::Tensor contiguous = mask.contiguous();
  const bool* kept = contiguous.const_data_ptr<bool>();
  for (int64_t r = 0; r < sparse.rows; ++r) {
    for (int64_t c = 0; c < sparse.columns; ++c) {
      if (kept[r * sparse.columns + c]) sparse.mask[static_cast<size_t>(r * row_bytes + c / 8)] |= static_cast<uint8_t>(1 << (c % 8));
    }
  }
  return sparse;
}

}  // namespace frugal::chain
