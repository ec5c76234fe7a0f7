#include "prune/pattern.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/team.h"

namespace frugal::prune {

std::vector<OptionSpec> pattern_options() {
  return {number_option("sparsity", 0.5, 0, 1, "share of the weights that is dropped"),
          choice_option("pattern", "unstructured", {"unstructured", "2:4", "4:8"}, "anywhere, or N kept of each M neighbours along the input")};
}

Pattern read_pattern(const Options& options) {
  const std::string& text = options.text("pattern");
  Pattern pattern{.sparsity = options.number("sparsity")};
  if (text == "unstructured") return pattern;
  if (options.given("sparsity") && pattern.sparsity != 0.5) {
    fail(ErrorKind::invalid_input, "pattern={} drops half of the weights, but sparsity={} was given", text, pattern.sparsity);
  }
  pattern.n = text == "2:4" ? 2 : 4;
  pattern.m = 2 * pattern.n;
  return pattern;
}

template <typename T>
void drop_lowest(const T* scores, bool* keep, int64_t count, int64_t drop) {
  if (drop <= 0) return;
  if (drop >= count) {
    std::fill(keep, keep + count, false);
    return;
  }
  // The drop-th lowest score, then everything below it and as many equal ones as are missing.
  std::vector<T> copy(scores, scores + count);
  std::nth_element(copy.begin(), copy.begin() + (drop - 1), copy.end());
  const T threshold = copy[static_cast<size_t>(drop - 1)];
  int64_t equal = drop - std::count_if(scores, scores + count, [&](T score) { return score < threshold; });
  for (int64_t i = 0; i < count; ++i) {
    if (scores[i] < threshold || (scores[i] == threshold && equal-- > 0)) keep[i] = false;
  }
}
template void drop_lowest<float>(const float*, bool*, int64_t, int64_t);
template void drop_lowest<double>(const double*, bool*, int64_t, int64_t);

Tensor keep_highest(const Tensor& scores, const Tensor& kept, const Pattern& pattern, Compared compared) {
  Tensor masked = scores.contiguous();
  if (kept.defined()) masked = masked.masked_fill(kept.logical_not(), -1);
  const int64_t rows = scores.size(0), columns = scores.size(1);
  Tensor keep = kept.defined() ? kept.clone() : at::ones({rows, columns}, at::kBool);
  const float* score = masked.const_data_ptr<float>();
  bool* out = keep.mutable_data_ptr<bool>();
  const auto dropped = [&](int64_t count) { return static_cast<int64_t>(std::floor(pattern.sparsity * static_cast<double>(count) + 1e-9)); };
  if (pattern.m == 0 && compared == Compared::matrix) {
    drop_lowest(score, out, rows * columns, dropped(rows * columns));
    return keep;
  }
  parallel_for(rows, 4, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      const int64_t at = row * columns;
      if (pattern.m == 0) {
        drop_lowest(score + at, out + at, columns, dropped(columns));
        continue;
      }
      for (int64_t begin = 0; begin < columns; begin += pattern.m) {
        const int64_t count = std::min<int64_t>(pattern.m, columns - begin);
        drop_lowest(score + at + begin, out + at + begin, count, count - pattern.n);
      }
    }
  });
  return keep;
}

}  // namespace frugal::prune
