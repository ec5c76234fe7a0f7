// Statistics of a model's own activations, block by block, kept for chains that begin alike: a sweep gathers those of the
// original model once. The tensors live in an unlinked temporary file that is mapped, so they are memory that the kernel
// may take back.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "chain/calibration.h"

namespace frugal::chain {

class CalibrationCache {
 public:
  // Needs that later chains with the same prefix will have: gathered together with the first. Set before the first chain.
  void expect(unsigned needs) { expected_ |= needs; }
  unsigned expected() const { return expected_; }

  using Blocks = std::vector<std::map<nn::InputPoint, InputStatistics>>;
  // Of the model after the steps `prefix` (canonical texts joined by spaces); nullptr when absent or lacking some of `needs`.
  const Blocks* find(const std::string& prefix, unsigned needs) const;
  void put(const std::string& prefix, unsigned needs, Blocks blocks);
  // Moves the tensors of one block's statistics to the file.
  static void spill(std::map<nn::InputPoint, InputStatistics>& statistics);

 private:
  unsigned expected_ = 0;
  std::map<std::string, std::pair<unsigned, Blocks>> entries_;
};

}  // namespace frugal::chain
