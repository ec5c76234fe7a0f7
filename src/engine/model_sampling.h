// What a loaded model says of sampling: its vocabulary, the defaults of its generation_config.json, and whether its logits can be drawn from.
#pragma once

#include <span>

#include "base/options.h"
#include "nn/loader.h"

namespace frugal::engine {

// Tokens to choose from: rows of the embedding beyond the tokenizer's vocabulary are padding, without text.
int64_t sampled_vocab(const nn::LoadedModel& model);

// What counts where the user says nothing, by the names of sampling_options(). Throws Error{corrupt_file} for a value out of range.
RawOptions sampling_defaults(const nn::LoadedModel& model);

// Throws Error{corrupt_file} for logits with a NaN or an infinity.
void require_finite(std::span<const float> logits, const nn::LoadedModel& model);

}  // namespace frugal::engine
