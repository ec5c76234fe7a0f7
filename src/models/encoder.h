// Encoders on disk: BERT (arXiv 1810.04805) in both containers, and the files of sentence-transformers that say how a model, encoder or
// decoder, makes one vector of a text.
#pragma once

#include "io/checkpoint.h"
#include "nn/encoder.h"

namespace frugal::models {

inline constexpr std::string_view kEncoderType = "bert";  // model_type of config.json, and GGUF's architecture

bool holds_encoder(const io::Checkpoint& checkpoint);

// Throws Error{corrupt_file} for a value out of range or a missing tensor, Error{unsupported} for a variation that nn::Encoder has not: it
// names the key.
std::shared_ptr<nn::Encoder> read_encoder(const std::shared_ptr<const io::Checkpoint>& checkpoint, nn::Execution execution);

// modules.json with the pooling that it names and sentence_bert_config.json, or GGUF's pooling_type; where they are absent, the mean for an
// encoder and the last token for a decoder, of length 1. `context`: most tokens that the model takes. Throws as above.
nn::EmbeddingSpec read_embedding_spec(const io::Checkpoint& checkpoint, bool encoder, int64_t context);

}  // namespace frugal::models
