// Which weights are dropped once each has a score: unstructured, or N kept of M neighbours along the input.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "base/options.h"

namespace frugal::prune {

using at::Tensor;

struct Pattern {
  double sparsity = 0.5;  // share that is dropped, when unstructured
  int n = 0, m = 0;       // n of m are kept; 0: unstructured
};

// The options `sparsity` and `pattern` (unstructured, 2:4, 4:8) and reading them. Throws Error{invalid_input} when a sparsity
// is given beside an N:M pattern that has another.
std::vector<OptionSpec> pattern_options();
Pattern read_pattern(const Options& options);

// Entries that share one choice, when unstructured: a whole matrix, or each row.
enum class Compared { matrix, row };

// scores float32 [out, in] >= 0; kept: what an earlier mask kept, or undefined: its dropped entries go first. Returns bool
// [out, in], true: kept. floor(sparsity * count) entries are dropped; in N:M, M - N of each M, of a ragged last group none
// beyond what is left of it above N. Among equal scores the earlier entry is dropped.
Tensor keep_highest(const Tensor& scores, const Tensor& kept, const Pattern& pattern, Compared compared);

// keep[i] = false for the `drop` lowest of scores[0..count), the earlier one first among equals; the rest stay as they are.
template <typename T>
void drop_lowest(const T* scores, bool* keep, int64_t count, int64_t drop);

}  // namespace frugal::prune
