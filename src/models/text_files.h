// The tokenizer, the chat template and the generation settings on their way to another container.
#pragma once

#include <string>

#include "base/metadata.h"
#include "nn/loader.h"

namespace frugal::models {

// Writes tokenizer.json and the files around it into `directory`: copies of those of a Hugging Face checkpoint, or made from
// GGUF metadata.
void write_text_files(const nn::LoadedModel& model, const std::string& directory);

// Ids of special tokens for a config.json of a model that came from GGUF.
void add_token_ids(const nn::LoadedModel& model, Json& config);

// tokenizer.ggml.* and tokenizer.chat_template of a model that came from a Hugging Face directory, one token for each row of
// the embedding. Throws Error{unsupported} when GGUF cannot say the tokenizer.
Metadata gguf_text_metadata(const nn::LoadedModel& model);

}  // namespace frugal::models
