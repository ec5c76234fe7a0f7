// A model of nothing yet: a checkpoint of Llama's architecture, or BitNet's, or one whose blocks share weights, or what a method of initialization makes of it,
// with drawn weights, to be trained.
#pragma once

#include <string>
#include <vector>

#include "base/options.h"
#include "nn/spec.h"
#include "train/parameter.h"

namespace frugal::train {

// Its shape, by transformers' names for Llama. With sub_norms the architecture is BitNet's. `initialization` is a row of train/initialization.h.
const std::vector<OptionSpec>& shape_options();

// What such a model is, of a vocabulary of so many tokens. Throws Error{invalid_input} for a shape that cannot be.
nn::ModelSpec new_model_spec(const Options& shape, int64_t vocab);

// The tensors of a model that trains whole, by name and shape, without numbers (on the device "meta").
std::vector<Parameter> parameters_of(const nn::ModelSpec& spec);

// The parts of the rate at which the tensors of a new model learn, as its initialization has them; by name. Throws Error{unsupported} for an optimizer that they
// are not for.
void scale_rates(const Options& shape, const nn::ModelSpec& spec, std::string_view optimizer, std::vector<Parameter>& parameters);

// Writes `directory` (Hugging Face: config.json, model.safetensors in float32, the tokenizer's files), atomically. Matrices are normal with deviation
// initializer_range, those that write to the residual stream smaller by sqrt(2 * layers) (GPT-2, section 2.3); norms are 1; or as `initialization` has it.
// One seed draws one model, on every machine. Throws Error{invalid_input} for a shape that cannot be.
void write_new_model(const std::string& directory, const Options& shape, const std::string& tokenizer, uint64_t seed);

}  // namespace frugal::train
