// Shared by the tests of data sets: a tokenizer that needs no file of others, templates, and what loading gives.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "data/dataset.h"
#include "oracle.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace frugal::data {

// Every byte is a token with the id of its place in the byte-level alphabet; then <s> 256, </s> 257, <|im_start|> 258, <|im_end|> 259.
inline std::shared_ptr<const text::Tokenizer> byte_tokenizer() {
  std::string vocabulary;
  int next = 256, id = 0;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printed = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || (byte >= 0xAE);
    const int code = printed ? byte : next++;
    vocabulary += fmt::format("{}\"\\u{:04x}\": {}", id ? "," : "", code, id);
    ++id;
  }
  std::string added;
  for (const char* token : {"<s>", "</s>", "<|im_start|>", "<|im_end|>"}) {
    added += fmt::format(R"({}{{"id": {}, "content": "{}", "special": true, "normalized": false, "lstrip": false, "rstrip": false, "single_word": false}})",
                         id > 256 ? "," : "", id, token);
    ++id;
  }
  const std::string json = fmt::format(
      R"({{"added_tokens": [{}], "normalizer": null, "pre_tokenizer": {{"type": "ByteLevel", "add_prefix_space": false, "use_regex": true, "trim_offsets": true}},
          "post_processor": null, "decoder": {{"type": "ByteLevel"}}, "model": {{"type": "BPE", "vocab": {{{}}}, "merges": []}}}})",
      added, vocabulary);
  return text::tokenizer_from_json(json, R"({"bos_token": "<s>", "eos_token": "</s>"})", "bytes");
}

inline constexpr std::string_view kChatml =
    "{%- for message in messages -%}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}";

// A model of bytes that speaks as a template says.
struct ByteModel {
  explicit ByteModel(std::string_view source = kChatml) : tokenizer(byte_tokenizer()), chat_template(source, "template") {}
  TextModel model() const { return {tokenizer.get(), &chat_template, "", "<s>", "</s>", nullptr, nullptr}; }

  // The text of the tokens, with those that are learned between [[ and ]].
  std::string shown(std::span<const int32_t> tokens, std::span<const uint8_t> trained) const {
    std::string text;
    bool open = false;
    for (size_t i = 0; i <= tokens.size(); ++i) {
      const bool learned = i < tokens.size() && trained[i];
      if (learned != open) text += learned ? "[[" : "]]";
      open = learned;
      if (i < tokens.size()) text += tokenizer->piece(tokens[i]);
    }
    return text;
  }
  std::string shown(const Example& example) const { return shown(example.tokens, example.trained); }

  std::shared_ptr<const text::Tokenizer> tokenizer;
  text::ChatTemplate chat_template;
};

// What loading one file of this content throws, as "kind: message", or "".
inline std::string load_error(const ByteModel& bytes, const std::string& name, const std::string& content, const Source& source = {},
                              const LoadOptions& options = {}) {
  const testing::TemporaryFolder folder;
  Source whole = source;
  whole.path = folder.write(name, content);
  try {
    load_dataset({whole}, options, bytes.model());
  } catch (const Error& error) {
    std::string message = fmt::format("{}: {}", to_string(error.kind()), error.what());
    for (size_t at; (at = message.find(folder.path() + "/")) != message.npos;) message.erase(at, folder.path().size() + 1);
    return message;
  }
  return "";
}

inline Dataset load(const ByteModel& bytes, const std::string& name, const std::string& content, const Source& source = {}, const LoadOptions& options = {}) {
  const testing::TemporaryFolder folder;
  Source whole = source;
  whole.path = folder.write(name, content);
  return load_dataset({whole}, options, bytes.model());
}

}  // namespace frugal::data
