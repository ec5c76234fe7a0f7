// Text to token ids and back. One class for every kind of vocabulary (byte-level BPE, SentencePiece BPE and unigram,
// WordPiece), built from tokenizer.json, a SentencePiece model, or the metadata of a GGUF file.
//
// The ids are those of Hugging Face `tokenizers` and of llama.cpp (the tests compare with both). Time is O(n log n) in
// the bytes of the text, whatever the text: one word of a megabyte costs as much as a megabyte of words.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/metadata.h"

namespace frugal::text {

struct EncodeOptions {
  bool add_special = true;     // what the model wants around a text: BOS, EOS, [CLS] ... [SEP]
  bool parse_special = false;  // "<|im_end|>" in the text is that token; off: it is ordinary text (user input)
  bool at_start = true;        // no token is before the text: some vocabularies put a space before the first text only
  size_t limit = SIZE_MAX;     // a text of more tokens throws TooManyTokens as soon as that is certain
};

// A text has more tokens than it may have: at least `at_least`.
class TooManyTokens : public Error {
 public:
  TooManyTokens(size_t at_least, size_t limit)
      : Error(ErrorKind::invalid_input, fmt::format("the text has at least {} tokens, {} are allowed", at_least, limit)), at_least(at_least) {}
  size_t at_least;
};

// Ids that have a meaning to the engine and to chat templates; absent when the vocabulary has none.
struct SpecialTokens {
  std::optional<int32_t> bos, eos, unk, pad;
  std::vector<int32_t> end_of_generation;  // eos and all other ids that end a turn, ascending
  bool add_bos = false;                    // encode(add_special) begins with bos (or [CLS])
  bool add_eos = false;                    // encode(add_special) ends with eos (or [SEP])
  bool add_space_prefix = false;           // a space is put before the text ("▁Hello")
};

struct TokenizerParts;  // text/tokenizer_parts.h: what the readers fill in

// Immutable and thread-safe.
class Tokenizer {
 public:
  explicit Tokenizer(std::unique_ptr<const TokenizerParts> parts);
  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // Any bytes are accepted; bytes that are not UTF-8 survive where the vocabulary has byte tokens.
  // Throws Error{invalid_input} when the text makes the normalizer or a pattern of the file exceed its limits.
  std::vector<int32_t> encode(std::string_view text, const EncodeOptions& options = {}) const;

  // The bytes of the whole sequence, as UTF-8 unless ids split a character. Leading space of "▁Hello" is dropped where
  // the vocabulary adds one. Throws Error{invalid_input} for an id outside 0..vocab_size()-1.
  std::string decode(std::span<const int32_t> ids, bool skip_special = false) const;

  // The raw bytes that the id contributes inside a text (grammars and logprobs need them); may be part of a character.
  std::string piece(int32_t id) const;

  // The token as the vocabulary writes it ("Ġthe", "▁the", "##ing", "<0x0A>"). Valid as long as the tokenizer.
  std::string_view token_text(int32_t id) const;

  int32_t vocab_size() const;
  std::optional<int32_t> find(std::string_view token) const;  // by vocabulary text, added tokens included
  bool is_special(int32_t id) const;                          // control tokens: dropped by decode(skip_special)
  const SpecialTokens& special() const;

 private:
  std::unique_ptr<const TokenizerParts> parts_;
};

// GGUF keys tokenizer.ggml.*. If only tokenizer.huggingface.json is there, that is used.
// Errors: corrupt_file (broken vocabulary), unsupported (unknown tokenizer.ggml.model or .pre, never guessed).
std::shared_ptr<const Tokenizer> tokenizer_from_metadata(const Metadata& metadata);

// tokenizer.json, and tokenizer_config.json or "" (it names bos, eos, pad and unk). `name` leads error messages.
std::shared_ptr<const Tokenizer> tokenizer_from_json(std::string_view tokenizer_json, std::string_view tokenizer_config_json, std::string_view name);

// A SentencePiece ModelProto (tokenizer.model, spiece.model) of type unigram or BPE; tokenizer_config.json may say whether BOS
// and EOS are added.
std::shared_ptr<const Tokenizer> tokenizer_from_sentencepiece(std::span<const std::byte> model, std::string_view name, std::string_view tokenizer_config = {});

// tokenizer.json (with tokenizer_config.json beside it), else tokenizer.model or spiece.model, else vocab.txt (WordPiece).
std::shared_ptr<const Tokenizer> load_tokenizer_directory(const std::string& path);

// Turns ids that arrive one by one into text that is always complete UTF-8: bytes of an unfinished character are held
// back until the next ids finish it. With `at_start` the ids are a whole text, whose first token loses the space that
// encode put there; else they go on after a prompt. Not thread-safe; the tokenizer must outlive it.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special = false, bool at_start = false)
      : tokenizer_(&tokenizer), skip_special_(skip_special), at_start_(at_start) {}

  // The text that became complete with this id, often "". Invalid bytes become U+FFFD, one per maximal invalid part.
  std::string push(int32_t id);
  // What is still held back, with an unfinished character as U+FFFD.
  std::string flush();

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_;
  bool at_start_;
  std::string held_;
};

}  // namespace frugal::text
