// One side of a claim of training, as it is written in a row: each word is a row of the optimizers, adapters, methods of distillation, growth or
// initialization as it is typed, a sharing of a new model's weights or another shape of it ("shape:intermediate_size=64"), or a schedule of the learning
// rate ("constant_with_warmup:warmup_steps=10"), or "full". What no word says is as usual:
// AdamW, the whole model, the data's labels, a cosine after a tenth of warm-up. No word at all: nothing is trained.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/method_choice.h"
#include "distill/distill_table.h"
#include "share/share_table.h"
#include "train/growth.h"
#include "train/initialization.h"
#include "train/optimizer.h"
#include "tune/adapter.h"
#include "tune/lisa.h"

namespace frugal::claims {

struct Side {
  bool trains = false;
  std::optional<MethodChoice<train::OptimizerFactory>> optimizer;  // set
  std::optional<MethodChoice<tune::AttachFunction>> adapter;
  std::optional<MethodChoice<tune::LayerSamplingFunction>> sampling;
  std::optional<MethodChoice<distill::DistillFunction>> distillation;
  std::optional<MethodChoice<train::GrowFunction>> growth;
  std::optional<MethodChoice<share::SharedArchitecture>> architecture;
  std::vector<std::pair<std::string, std::string>> shape;  // of train::shape_options(), in place of the model's, architecture included
  std::optional<train::InitializationChoice> initialization;
  std::string initialization_text;  // as it is typed, or empty
  Options schedule;                 // of train::schedule_options()
};

// Throws Error{invalid_input} for a word that is nothing of these, with the nearest one, for two of one kind, and for options that it has not.
Side parse_side(const std::vector<std::string>& words);

// The side's optimizer of these.
std::unique_ptr<train::Optimizer> optimizer_of(const Side& side, const std::vector<train::Parameter>& parameters, uint64_t seed);

}  // namespace frugal::claims
