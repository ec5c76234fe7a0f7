// The learning rate over a run, in the names and numbers of transformers' lr_scheduler_type.
#pragma once

#include <cstdint>
#include <vector>

#include "base/options.h"

namespace frugal::train {

const std::vector<OptionSpec>& schedule_options();

// What step `step` (from 0) of `total` multiplies the learning rate by. Throws Error{invalid_input} for an option that the type
// does not read, and for a warm-up and a decay that do not fit into the run.
double schedule_factor(const Options& options, int64_t step, int64_t total);

}  // namespace frugal::train
