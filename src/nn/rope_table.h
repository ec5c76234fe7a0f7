// Cosines and sines of rotary positions, grown as sequences grow; one table per distinct RopeSpec in the process.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "nn/spec.h"

namespace frugal::nn {

struct RopeFrequencies {
  std::vector<float> inverse;   // [rotary_dim / 2], radians per position
  double attention_factor = 1;  // multiplies cosines and sines
};

// For sequences of `length` positions (dynamic and longrope depend on it). Sources: arXiv 2104.09864 (none), 2306.15595
// (linear), NTK-aware scaling (dynamic), Llama 3.1 (llama3), 2309.00071 (yarn), 2402.13753 (longrope); conventions as in
// transformers' modeling_rope_utils.
RopeFrequencies rope_frequencies(const RopeSpec& spec, int64_t length);

// Not thread-safe: used by the one thread that runs the model.
class RopeTable {
 public:
  explicit RopeTable(RopeSpec spec) : spec_(std::move(spec)) {}
  // Tables with at least `length` rows, [rows, rotary_dim / 2] float32.
  void prepare(int64_t length);
  const at::Tensor& cos() const { return cos_; }
  const at::Tensor& sin() const { return sin_; }
  const RopeSpec& spec() const { return spec_; }

 private:
  RopeSpec spec_;
  int64_t regime_ = -1;  // what the frequencies were computed for
  at::Tensor cos_, sin_;
};

// The table of this spec; the last few are kept.
std::shared_ptr<RopeTable> shared_rope_table(const RopeSpec& spec);

}  // namespace frugal::nn
