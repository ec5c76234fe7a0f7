// Quantization that a model trains with from its first step: `frugal train --method`.
#pragma once

#include <vector>

#include "base/method_table.h"
#include "nn/model.h"
#include "train/parameter.h"

namespace frugal::quantize {

struct TrainedQuantization {
  // Makes everything trainable (train::all_parameters) and lets the matrices of the blocks compute as they will be stored.
  std::vector<train::Parameter> (*begin)(nn::Model& model, const Options& options) = nullptr;
  // What begin() made of the matrices, in the form that is stored. The parameters stay as they are.
  void (*store)(nn::Model& model, const Options& options) = nullptr;
  bool sub_norms = false;  // a new model gets norms before its output projections (nn::BlockSpec::sub_norms)
};

using TrainedQuantizationRow = MethodRow<TrainedQuantization>;
const MethodTable<TrainedQuantization>& trained_quantization_table();

}  // namespace frugal::quantize
