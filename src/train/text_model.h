// How a loaded model reads the texts and rows that it learns from.
#pragma once

#include "base/clock.h"
#include "data/chat_encoder.h"
#include "nn/loader.h"

namespace frugal::train {

// What templates that write the date go by: it stands still, so that tokens are the same on every day.
const Clock& training_clock();

// Points into `model`. Throws Error{invalid_input} when it has no tokenizer.
data::TextModel text_model_of(const nn::LoadedModel& model);

}  // namespace frugal::train
