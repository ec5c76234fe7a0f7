// Checkpoints of a training run: complete or absent, checked when they are read, and the newest good one found.
//
//   output/checkpoint-40/                 the folder appears by one rename, after all in it is synced
//     parameters.safetensors              what trains, float32, by name
//     optimizer.safetensors               the optimizer's state, by name
//     trainer_state.json                  step, epoch, log_history (as transformers writes it), what a resumed run must agree in
//     manifest.json                       format version, and SHA-256 and size of every other file
//     adapter_config.json, ...            what else the run puts there for other tools
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <optional>
#include <string>

#include "base/json.h"

namespace frugal::train {

using TensorMap = std::map<std::string, at::Tensor>;

struct Checkpoint {
  int64_t step = 0;
  Json state;  // trainer_state.json
  TensorMap parameters, optimizer;
};

// Writes output/checkpoint-<step>. `add` may put further files into the folder that it is given. Throws Error{io} when the disk is full or fails
// (nothing is left then), Error{internal} for a tensor that is not finite.
void write_checkpoint(const std::string& output, const Checkpoint& checkpoint, const std::function<void(const std::string& folder)>& add = {});

// Throws Error{corrupt_file} with the file and what is wrong: a missing or changed file, a manifest of another step, a newer format version.
Checkpoint read_checkpoint(const std::string& folder);

// Of all checkpoints in `output` the newest that can be read; each newer one that cannot is reported by log_warning and renamed, so that it neither
// counts nor is in the way: "checkpoint-40.unusable". None there at all: nothing. All of them bad: Error{corrupt_file}, and none is renamed.
std::optional<Checkpoint> newest_checkpoint(const std::string& output);

// trainer_state.json of the newest checkpoint that has one which can be read; nothing else of it is looked at, and nothing is renamed.
std::optional<Json> newest_state(const std::string& output);

bool has_checkpoints(const std::string& output);
void remove_checkpoints(const std::string& output);
// Removes the oldest until `keep` are left (0: keeps all).
void prune_checkpoints(const std::string& output, int64_t keep);

// All tensors of a safetensors file. Throws Error{corrupt_file}.
TensorMap read_tensors(const std::string& path);
// Writes tensors as safetensors, F32, F64, I64, I32, U8 or I8 as they are.
void write_tensors(const std::string& path, const TensorMap& tensors);

}  // namespace frugal::train
