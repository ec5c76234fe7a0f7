// Models that grow: the weights of a trained model as the start of a larger one, one row of the table per method (methods.md, section 2.2).
#pragma once

#include <memory>

#include "base/method_table.h"
#include "nn/model.h"
#include "train/checkpoint.h"

namespace frugal::train {

struct Grown {
  std::shared_ptr<nn::Model> model;  // float32
  TensorMap optimizer;               // AdamW's state for it, where one was given and the method has a map for it; else empty
};

// adamw: the state of the run that made the model, by the names of a checkpoint, or null. The same seed grows the same model.
// Throws Error{unsupported} for a model that is not dense, pre-norm and of equal blocks, Error{invalid_input} for sizes that the method cannot reach.
using GrowFunction = Grown (*)(const nn::Model& model, const TensorMap* adamw, const Options& options, uint64_t seed);
using GrowthRow = MethodRow<GrowFunction>;
const MethodTable<GrowFunction>& growth_table();

// The largest difference between the logits of two models of one vocabulary, in units of the largest logit of `before`, on a few sequences of
// random tokens.
double logits_difference(const nn::Model& before, const nn::Model& after, uint64_t seed);

}  // namespace frugal::train
