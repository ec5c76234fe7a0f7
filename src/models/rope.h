// Rotary embeddings in the words of config.json and GGUF.
#pragma once

#include <string>

#include "base/json.h"
#include "models/family.h"
#include "nn/spec.h"

namespace frugal::models {

// What the defaults of rope parameters depend on.
struct RopeContext {
  int64_t head_dim = 0;
  int64_t context_length = 0;    // max_position_embeddings
  int64_t original_context = 0;  // key beside the parameters (Phi-3), 0: absent
  double default_theta = 10000;
};

// A float32 of a file as the decimal that was meant: 1e-05, not 9.999999747378752e-06.
double tidy_float(double value);

nn::RopeSpec plain_rope(double theta, int64_t head_dim);

// `parameters`: rope_parameters (transformers 5), or rope_scaling (before), whose theta is outside and given by the context.
// Throws Error{corrupt_file} for ranges, Error{unsupported} for a type that is not RopeScaling.
nn::RopeSpec rope_from_parameters(const JsonObject& parameters, const RopeContext& context);

// One rope for all layers: rope_parameters, or rope_theta with rope_scaling.
nn::RopeSpec rope_from_config(const JsonObject& config, RopeContext context);

// Writes rope_theta and, unless it is plain, rope_scaling: transformers 4 and 5 and vLLM read both.
void rope_to_config(const nn::RopeSpec& rope, Json& config);

// {architecture}.rope.* and the factor tensors. Llama 3's scaling is stored as factors alone; parameters of a published
// model are recognised, others become longrope with one set of factors, which rotates equally.
nn::RopeSpec rope_from_gguf(const GgufDescription& description, const RopeContext& context);
// Throws Error{unsupported} for `dynamic` and for yarn with unusual parameters.
void rope_to_gguf(const nn::RopeSpec& rope, GgufDescription& description);

// Llama 3's scaling as factors (longrope), the rest unchanged: equal results compare equal.
nn::RopeSpec canonical(const nn::RopeSpec& rope);

}  // namespace frugal::models
