// In which order examples are learned. All of it is a pure function of the seed and the epoch: a run that resumes asks for the same
// epoch again and goes on at its step.
#pragma once

#include <cstdint>
#include <vector>

#include "data/dataset.h"

namespace frugal::data {

// A permutation of 0..size-1, drawn by (seed, epoch), whose every value costs a few multiplications and no memory: a Feistel
// network over the next power of four, walked until the value is in range (Black and Rogaway, 2002).
class Permutation {
 public:
  Permutation(uint64_t size, uint64_t seed, uint64_t epoch);
  uint64_t operator()(uint64_t index) const;  // index < size
  uint64_t size() const { return size_; }

 private:
  static constexpr int kRounds = 8;
  uint64_t size_;
  int half_bits_;
  uint64_t keys_[kRounds];
};

struct BatchOptions {
  uint64_t seed = 0;
  size_t micro_batch_size = 1;
  size_t sequence_len = 2048;
  bool sample_packing = false;
};

// What one forward pass learns: ids of examples, or of pairs where the data set has pairs.
using MicroBatch = std::vector<uint64_t>;

// The micro-batches of an epoch, each example in exactly one. Without sample_packing a micro-batch has micro_batch_size examples;
// with it, as many as micro_batch_size sequences of sequence_len tokens hold, each of them whole (the trainer gives every example a
// slice of its own, so they do not see each other). The last one may be smaller. A pair counts the tokens of both.
std::vector<MicroBatch> batches(const Dataset& dataset, const BatchOptions& options, uint64_t epoch);

// The ids of examples (or pairs) that are set aside for validation and the others, both ascending: Axolotl's val_set_size, a share
// when it is below one, else a number.
struct Split {
  std::vector<uint64_t> training, validation;
};
Split split(const Dataset& dataset, double val_set_size, uint64_t seed);

}  // namespace frugal::data
