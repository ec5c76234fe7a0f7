// Between masks as tensors and masks as formats/ stores them.
#pragma once

#include <ATen/core/Tensor.h>

#include "formats/sparse.h"

namespace frugal::chain {

// The pattern of `mask` (bool [rows, columns], true: kept) without values. m > 0: n of each m columns are kept.
// A mask that does not have that pattern everywhere (a ragged row, a second pruning) gives a bitmap.
formats::SparseWeight sparse_pattern(const at::Tensor& mask, int n, int m);

}  // namespace frugal::chain
