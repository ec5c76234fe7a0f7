// A model of nothing yet: a checkpoint of Llama's architecture, or BitNet's, or one whose blocks share weights, with drawn weights, to be trained.
#pragma once

#include <string>
#include <vector>

#include "base/options.h"
#include "nn/spec.h"
#include "train/parameter.h"

namespace frugal::train {

// Its shape, by transformers' names for Llama. With sub_norms the architecture is BitNet's.
const std::vector<OptionSpec>& shape_options();

// What such a model is, of a vocabulary of so many tokens. Throws Error{invalid_input} for a shape that cannot be.
nn::ModelSpec new_model_spec(const Options& shape, int64_t vocab);

// The tensors of a model that trains whole, by name and shape, without numbers (on the device "meta").
std::vector<Parameter> parameters_of(const nn::ModelSpec& spec);

// Writes `directory` (Hugging Face: config.json, model.safetensors in float32, the tokenizer's files), atomically. Matrices are normal with deviation
// initializer_range, those that write to the residual stream smaller by sqrt(2 * layers) (GPT-2, section 2.3); norms are 1. One seed draws one model,
// on every machine. Throws Error{invalid_input} for a shape that cannot be.
void write_new_model(const std::string& directory, const Options& shape, const std::string& tokenizer, uint64_t seed);

}  // namespace frugal::train
