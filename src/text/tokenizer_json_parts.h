// The sections of a tokenizer.json, each read by one function. Throw Error{corrupt_file} for what is broken and
// Error{unsupported} for a type that we do not know; a section that is not understood is never skipped.
#pragma once

#include <string>
#include <string_view>

#include "base/json.h"
#include "text/tokenizer_parts.h"

namespace frugal::text {

// "normalizer"; appends its steps. `section` is null or an object.
void read_normalizer(const Json* section, const std::string& path, Normalizer& normalizer);

// "pre_tokenizer"; `ByteLevel` at the end sets byte_level.
void read_pre_tokenizer(const Json* section, const std::string& path, PreTokenizer& pre_tokenizer);

// "decoder".
void read_decoder(const Json* section, const std::string& path, Detokenizer& detokenizer);

// "post_processor": what it puts around one text, into parts.prefix and parts.suffix.
void read_post_processor(const Json* section, const std::string& path, TokenizerParts& parts);

// "model": its vocabulary, by id (gaps are empty strings), and then, once parts.vocabulary is complete, the model.
std::vector<std::string> read_model_vocabulary(const JsonObject& model);
void read_model(const JsonObject& model, TokenizerParts& parts);

// {"String": "..."} or {"Regex": "..."}, or a plain string.
struct JsonPattern {
  std::string text;
  bool is_regex = false;
};
JsonPattern read_pattern(const JsonObject& owner, std::string_view key);

// The items of an array of objects under `key`, with their paths.
std::vector<JsonObject> read_objects(const JsonObject& owner, std::string_view key);

std::string base64_decode(std::string_view text, std::string_view path);

}  // namespace frugal::text
