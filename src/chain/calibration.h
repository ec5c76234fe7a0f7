// Calibration: what is known of the inputs of each Linear, gathered while token sequences run through the model.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "nn/model.h"

namespace frugal::chain {

using at::Tensor;

// What a step reads of InputStatistics; only what some step of a loop needs is gathered.
// kNeedsText: Workbench::text itself (scope model).
enum Needs : unsigned { kNeedsNothing = 0, kNeedsHessian = 1, kNeedsMagnitude = 2, kNeedsSample = 4, kNeedsText = 8 };

// Of one InputPoint of one block, over all calibration tokens.
struct InputStatistics {
  int64_t tokens = 0;
  Tensor hessian;   // float32 [in, in]: X^T X / tokens (GPTQ's H up to the factor 2)           kNeedsHessian
  Tensor norm;      // float32 [in]: l2 norm of each column over all tokens                      kNeedsMagnitude
  Tensor abs_mean;  // float32 [in]                                                              kNeedsMagnitude
  Tensor abs_max;   // float32 [in]                                                              kNeedsMagnitude
  Tensor sample;    // float32 [sample sequences * sequence length, in]: whole first sequences   kNeedsSample
};

struct CalibrationOptions {
  int64_t sequences = 16;
  int64_t sequence_length = 512;
  int64_t sample_sequences = 2;  // of them, kept as raw rows
};

struct CalibrationText {
  std::string name;             // file name
  std::vector<int32_t> tokens;  // sequences * sequence_length
};

// Adds to its statistics while it is called as the tap of Block::forward; finish() divides.
class StatisticsCollector {
 public:
  StatisticsCollector(unsigned needs, int64_t sample_rows) : needs_(needs), sample_rows_(sample_rows) {}
  void operator()(nn::InputPoint point, const Tensor& input);
  std::map<nn::InputPoint, InputStatistics> finish();

 private:
  unsigned needs_;
  int64_t sample_rows_;
  std::map<nn::InputPoint, InputStatistics> statistics_;
};

}  // namespace frugal::chain
