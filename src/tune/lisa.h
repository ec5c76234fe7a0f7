// Ways of tuning the whole model, some of its layers at a time.
#pragma once

#include "base/method_table.h"
#include "train/layer_sampler.h"

namespace frugal::tune {

using LayerSamplingFunction = train::LayerSampling (*)(const Options& options, uint64_t seed);
using LayerSamplingRow = MethodRow<LayerSamplingFunction>;
const MethodTable<LayerSamplingFunction>& layer_sampling_table();

LayerSamplingRow lisa_row();

}  // namespace frugal::tune
