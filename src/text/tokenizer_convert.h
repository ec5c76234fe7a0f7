// One representation of a tokenizer from another, for `frugal convert`.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include "base/json.h"
#include "base/metadata.h"

namespace frugal::text {

// The keys tokenizer.ggml.* (model, pre, tokens, scores, token_type, merges, special ids, add_bos_token ...) of a
// tokenizer.json, and tokenizer.huggingface.json with the file itself. `config` is tokenizer_config.json or null.
// Throws Error{unsupported} where GGUF has no words for it (a split pattern that no tokenizer.ggml.pre names).
Metadata gguf_tokenizer_metadata(const Json& tokenizer_json, const Json& config);

// The same from a SentencePiece model.
Metadata gguf_tokenizer_metadata(std::span<const std::byte> sentencepiece_model, std::string_view name);

// A tokenizer.json that `tokenizers` loads, with the ids of the GGUF vocabulary: the embedded
// tokenizer.huggingface.json when there is one, else built from the keys.
Json tokenizer_json_from_metadata(const Metadata& metadata);

}  // namespace frugal::text
