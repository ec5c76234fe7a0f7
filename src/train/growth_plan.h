// What the methods of growth share: a plan, which says where each channel and each block of the larger model comes from, and its execution.
//
// A channel of the smaller model has one or more copies, all with its value. Who writes it writes all copies (rows are copied); who reads it reads
// them with weights that sum to the old one (columns are split). So each matrix is W' = expand(rows) W split(columns), and the function stays. A
// norm sees copies only, or copies and zeros: its mean of squares is the old one times a number, which its weight takes back.
//
// Copies that are read with equal weights get equal gradients and would stay equal for ever (nothing here is random in training: no dropout). So
// the split adds `noise` that cancels: for each row, normal numbers less their mean over the copies of a channel (LEMON's projection of fan-out weights).
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "base/options.h"
#include "nn/model.h"
#include "train/growth.h"

namespace frugal::train {

// An axis of the larger model.
struct Axis {
  // source: the old channel of each new one, or -1 for a channel that is new, whose value is 0.
  Axis(const std::vector<int64_t>& sources, int64_t old_size);
  static Axis circular(int64_t old_size, int64_t new_size);                                        // channel i is a copy of i modulo the old size
  static Axis padded(int64_t old_size, int64_t new_size);                                          // whole copies, then new channels
  static Axis of_heads(const std::vector<int64_t>& sources, int64_t old_heads, int64_t head_dim);  // channels of whole heads

  int64_t old_size, copies;  // copies: the most that a channel has
  at::Tensor source;         // [new] int64; 0 for a new channel
  at::Tensor copy;           // [new] int64: which copy of its source it is, from 0
  at::Tensor present;        // [new] float32: 0 for a new channel, else 1
  at::Tensor share;          // [new] float32: 1 / copies of its source; 0 for a new channel
  int64_t size() const { return source.size(0); }
  bool has_new() const;
};

// Sizes by transformers' names; an option that is 0 is in proportion to hidden_size, where that is given, else as it is.
struct Sizes {
  int64_t layers, hidden, heads, kv_heads, intermediate;
};
std::vector<OptionSpec> size_options();
OptionSpec noise_option(double fallback, std::string help);
Sizes sizes_of(const nn::Model& model);
// Throws Error{invalid_input} when one is smaller than it was, none is larger, or heads do not go into groups.
Sizes wanted_sizes(const nn::Model& model, const Options& options);

struct BlockOrigin {
  size_t block;              // of the smaller model
  bool is_identity = false;  // a copy of it whose output projections are 0
};

struct GrowthPlan {
  Sizes sizes;
  Axis hidden, query, key, intermediate;
  std::vector<BlockOrigin> blocks;
  bool pairs =
      false;  // copies are read by copies (a block-diagonal matrix) where the numbers allow it, else each by all; every axis has equally many of each channel
  double noise = 0;  // in units of the root mean square of the matrix
};

// Axes by circular copies, the residual stream by whole copies and zeros; new blocks as identities, spread evenly, each after the block that it is a copy of.
GrowthPlan function_preserving_plan(const nn::Model& model, const Sizes& sizes);

// Throws Error{unsupported} with what the model has that growth has no rule for.
void require_growable(const nn::Model& model);
// The larger model; with `adamw` its state as well: what it would be, had the larger model had the gradients so far (noise set aside). Blocks that are
// new begin with none.
Grown grow(const nn::Model& model, const GrowthPlan& plan, const TensorMap* adamw, uint64_t seed);

}  // namespace frugal::train
