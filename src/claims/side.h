// One side of a claim of training, as it is written in a row: each word is a row of the optimizers, adapters, methods of distillation, growth or
// initialization as it is typed, or a schedule of the learning rate ("constant_with_warmup:warmup_steps=10"), or "full". What no word says is as usual:
// AdamW, the whole model, the data's labels, a cosine after a tenth of warm-up. No word at all: nothing is trained.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/method_choice.h"
#include "distill/distill_table.h"
#include "train/growth.h"
#include "train/initialization.h"
#include "train/optimizer.h"
#include "tune/adapter.h"

namespace frugal::claims {

struct Side {
  bool trains = false;
  std::optional<MethodChoice<train::OptimizerFactory>> optimizer;  // set
  std::optional<MethodChoice<tune::AttachFunction>> adapter;
  std::optional<MethodChoice<distill::DistillFunction>> distillation;
  std::optional<MethodChoice<train::GrowFunction>> growth;
  std::optional<train::InitializationChoice> initialization;
  std::string initialization_text;  // as it is typed, or empty
  Options schedule;                 // of train::schedule_options()
};

// Throws Error{invalid_input} for a word that is nothing of these, with the nearest one, for two of one kind, and for options that it has not.
Side parse_side(const std::vector<std::string>& words);

}  // namespace frugal::claims
