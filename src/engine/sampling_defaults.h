// The sampling that a checkpoint asks for in its generation_config.json: what counts where the user says nothing.
#pragma once

#include "base/options.h"
#include "nn/loader.h"

namespace frugal::engine {

// By the names of sampling_options(). Throws Error{corrupt_file} for a value out of range.
RawOptions sampling_defaults(const nn::LoadedModel& model);

}  // namespace frugal::engine
