// The two containers that Loader::save writes.
#pragma once

#include <string>

#include "nn/loader.h"

namespace frugal::models {

// A directory. own_layouts: format `frugal`, else `huggingface`. Each throws Error{unsupported} before anything is written.
void save_directory(const nn::LoadedModel& model, const std::string& path, const nn::SaveOptions& options, bool own_layouts);
std::string cannot_express_in_directory(const nn::Model& model, bool own_layouts);

void save_gguf(const nn::LoadedModel& model, const std::string& path, const nn::SaveOptions& options);
std::string cannot_express_in_gguf(const nn::Model& model);

// All matrices of the model as named Linears, each once: embedding, blocks' Linears, an untied head.
std::vector<nn::Linear> matrices_of(const nn::Model& model);

// What frugal.json and frugal.chain say: the chain (options.manifest, else what the model came with), without what describes
// tensors, and original_parameters. Null when there is no chain.
Json chain_manifest(const nn::LoadedModel& model, const nn::SaveOptions& options);

}  // namespace frugal::models
