// The specification of a checkpoint's model, and the words that a container has for one.
#pragma once

#include <string>

#include "base/json.h"
#include "io/checkpoint.h"
#include "models/family.h"
#include "nn/spec.h"

namespace frugal::models {

// Throws Error{unsupported} for an unknown architecture, Error{corrupt_file} for values out of range. Tensor shapes are
// checked when the weights are read.
nn::ModelSpec describe(const io::Checkpoint& checkpoint);

// config.json's keys for the architecture: architectures, model_type, sizes. Throws Error{unsupported} with the first thing that
// config.json cannot say: it is what reading the result gives back differently.
Json config_of(const nn::ModelSpec& spec);

// As config_of, but sizes that differ from block to block are allowed; frugal.json's "blocks" (null: not needed) has them.
struct ConfigAndBlocks {
  Json config;
  Json blocks;
};
ConfigAndBlocks config_and_blocks_of(const nn::ModelSpec& spec);

// The same for GGUF.
GgufDescription gguf_of(const nn::ModelSpec& spec);

// Keys of config.json that config_of writes or that mean the same as one that it writes. A saver that starts from a
// checkpoint's own config.json removes them first.
void erase_interpreted_keys(Json& config);

}  // namespace frugal::models
