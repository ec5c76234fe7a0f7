// Tokenizers from the keys tokenizer.ggml.* of GGUF files.
#include <algorithm>
#include <cmath>

#include "base/checked.h"
#include "base/error.h"
#include "text/split_table.h"
#include "text/tokenizer_parts.h"
#include "text/unicode.h"

namespace frugal::text {
namespace {

constexpr size_t kMaxTokens = 16 << 20;
std::string key(std::string_view name) { return fmt::format("tokenizer.ggml.{}", name); }

// An id of the vocabulary, or nothing: files write 2^32-1 or leave the key out where there is none.
std::optional<int32_t> id_of(const Metadata& metadata, std::string_view name, int32_t size) {
  if (!metadata.has(key(name))) return std::nullopt;
  const int64_t id = metadata.integer(key(name), -1, UINT32_MAX);
  if (id == -1 || id == UINT32_MAX) return std::nullopt;
  if (id >= size) metadata.fail_at(key(name), fmt::format("must be below the {} tokens of the vocabulary", size));
  return static_cast<int32_t>(id);
}

class GgufReader {
 public:
  explicit GgufReader(const Metadata& metadata) : metadata_(metadata), parts_(std::make_unique<TokenizerParts>()) {}

  std::unique_ptr<TokenizerParts> read() {
    const std::string& model = metadata_.text(key("model"));
    read_vocabulary();
    parts_->special.bos = id_of(metadata_, "bos_token_id", size());
    parts_->special.eos = id_of(metadata_, "eos_token_id", size());
    parts_->special.unk = id_of(metadata_, "unknown_token_id", size());
    parts_->special.pad = id_of(metadata_, "padding_token_id", size());
    if (model == "gpt2" || model == "gemma4") {
      read_bpe(model == "gemma4");
    } else if (model == "llama") {
      read_score_bpe();
    } else if (model == "t5") {
      read_unigram();
    } else if (model == "bert") {
      read_wordpiece();
    } else {
      fail(ErrorKind::unsupported, "{}: tokenizer.ggml.model \"{}\" is not supported; gpt2, llama, t5, bert and gemma4 are", source(), printable(model));
    }
    finish();
    return std::move(parts_);
  }

 private:
  const std::string& source() const { return metadata_.source(); }
  int32_t size() const { return parts_->vocabulary.size(); }

  void read_vocabulary() {
    const std::vector<std::string>& tokens = metadata_.texts(key("tokens"));
    if (tokens.empty()) metadata_.fail_at(key("tokens"), "must hold at least one token");
    if (tokens.size() > kMaxTokens) metadata_.fail_at(key("tokens"), fmt::format("must hold at most {} tokens", kMaxTokens));
    parts_->vocabulary = Vocabulary(tokens, false);
    parts_->kinds.assign(tokens.size(), TokenKind::normal);
    if (!metadata_.has(key("token_type"))) return;
    const std::vector<int64_t> types = metadata_.integers(key("token_type"));
    if (types.size() < tokens.size()) metadata_.fail_at(key("token_type"), fmt::format("must have {} entries, as tokens", tokens.size()));
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (types[i] < 0 || types[i] > 6) metadata_.fail_at(key("token_type"), fmt::format("entry {} must be in 0..6", i));
      parts_->kinds[i] = static_cast<TokenKind>(types[i]);
    }
    check_bytes();
  }

  // Tokens of the kind "byte" are <0x00> ... <0xFF>, each once: with fewer, some texts would have no ids.
  void check_bytes() const {
    std::vector<bool> seen(256, false);
    size_t count = 0;
    for (size_t i = 0; i < parts_->kinds.size(); ++i) {
      if (parts_->kinds[i] != TokenKind::byte) continue;
      const std::string_view text = parts_->vocabulary.text(static_cast<int32_t>(i));
      const int byte = parse_byte_token(text);
      if (byte < 0 || seen[static_cast<size_t>(byte)]) {
        metadata_.fail_at(key("tokens"), fmt::format("entry {}, \"{}\", is of the kind byte and must be <0x00> ... <0xFF>, each once", i, printable(text)));
      }
      seen[static_cast<size_t>(byte)] = true;
      ++count;
    }
    if (count != 0 && count != 256) metadata_.fail_at(key("tokens"), fmt::format("has {} tokens of the kind byte, must have 256 or none", count));
  }

  std::vector<float> scores() const {
    const std::vector<double> numbers = metadata_.numbers(key("scores"));
    if (numbers.size() < static_cast<size_t>(size())) metadata_.fail_at(key("scores"), fmt::format("must have {} entries, as tokens", size()));
    std::vector<float> result;
    for (const double number : numbers) {
      if (!std::isfinite(number)) metadata_.fail_at(key("scores"), "must be finite");
      result.push_back(static_cast<float>(number));
    }
    return result;
  }

  // Control, unknown and user-defined tokens are cut out of the raw text.
  void read_added(bool with_user_defined) {
    std::vector<AddedToken> added;
    for (int32_t id = 0; id < size(); ++id) {
      const TokenKind kind = parts_->kinds[static_cast<size_t>(id)];
      const bool special = kind == TokenKind::control || kind == TokenKind::unknown;
      if (special || (kind == TokenKind::user_defined && with_user_defined)) {
        added.push_back({.id = id, .content = std::string(parts_->vocabulary.text(id)), .special = special});
      }
    }
    parts_->raw_added = AddedTokenMatcher(std::move(added), source());
  }

  std::vector<std::pair<std::string_view, std::string_view>> merges() const {
    std::vector<std::pair<std::string_view, std::string_view>> result;
    for (const std::string& merge : metadata_.texts(key("merges"))) {
      const size_t space = merge.find(' ', 1);  // the left part may be a space
      if (space == std::string::npos || space + 1 == merge.size()) {
        metadata_.fail_at(key("merges"), fmt::format("entry {} must be two tokens with a space between, is \"{}\"", result.size(), printable(merge)));
      }
      result.emplace_back(std::string_view(merge).substr(0, space), std::string_view(merge).substr(space + 1));
    }
    return result;
  }

  void read_bpe(bool gemma) {
    const SplitRow& row = find_split(gemma ? "gemma4" : metadata_.text_or(key("pre"), "default"), source());
    parts_->pre_tokenizer = make_pre_tokenizer(row);
    BpeOptions options{.source = source(), .byte_level = row.byte_level, .ignore_merges = row.ignore_merges};
    options.control = control_ids(*parts_);
    if (row.byte_level) {
      parts_->detokenizer = {{.kind = DecoderStep::Kind::byte_level}};
    } else {
      options.unknown = {.unk = parts_->special.unk, .byte_fallback = true, .fuse_unk = true};
      parts_->normalizer.push_back(replace_text(" ", std::string(kSpaceSymbol)));
      parts_->detokenizer = space_decoder(false);
    }
    parts_->model = make_bpe(parts_->vocabulary, merges(), std::move(options));
    parts_->special.add_bos = row.add_bos;
    read_added(true);
  }

  static Detokenizer space_decoder(bool strip_first) {
    using Kind = DecoderStep::Kind;
    Detokenizer steps = {{.kind = Kind::replace, .text = std::string(kSpaceSymbol), .replacement = " "}, {.kind = Kind::byte_fallback}, {.kind = Kind::fuse}};
    if (strip_first) steps.push_back({.kind = Kind::strip, .text = " ", .start = 1});
    return steps;
  }

  void read_score_bpe() {
    parts_->special.add_bos = parts_->special.bos.has_value();
    parts_->special.add_space_prefix = metadata_.boolean_or(key("add_space_prefix"), true);
    if (parts_->special.add_space_prefix) parts_->normalizer.push_back(prepend(std::string(kSpaceSymbol)));
    parts_->normalizer.push_back(replace_text(" ", std::string(kSpaceSymbol)));
    parts_->detokenizer = space_decoder(parts_->special.add_space_prefix);
    std::vector<bool> mergeable;
    for (const TokenKind kind : parts_->kinds) mergeable.push_back(kind == TokenKind::normal || kind == TokenKind::user_defined);
    BpeOptions options{.source = source(), .unknown = {.unk = parts_->special.unk, .byte_fallback = true, .fuse_unk = false}};
    parts_->model = make_score_bpe(parts_->vocabulary, scores(), mergeable, std::move(options));
    read_added(true);
  }

  std::string charsmap_blob() const {
    std::string blob;
    if (!metadata_.has(key("precompiled_charsmap"))) return blob;
    for (const int64_t byte : metadata_.integers(key("precompiled_charsmap"))) {
      if (byte < -128 || byte > 255) metadata_.fail_at(key("precompiled_charsmap"), "must be an array of bytes");
      blob += static_cast<char>(byte);
    }
    return blob;
  }

  void read_unigram() {
    parts_->special.add_eos = parts_->special.eos.has_value();
    parts_->special.add_space_prefix = metadata_.boolean_or(key("add_space_prefix"), true);
    SentencePieceOptions normalizer;
    normalizer.charsmap = Charsmap(charsmap_blob(), source());
    normalizer.add_dummy_prefix = parts_->special.add_space_prefix;
    normalizer.remove_extra_whitespaces = metadata_.boolean_or(key("remove_extra_whitespaces"), false);
    const std::vector<float> given = scores();
    std::vector<double> numbers(given.begin(), given.end());
    std::vector<bool> usable;
    UnigramOptions options{.source = source(), .unknown = {.unk = parts_->special.unk, .byte_fallback = false, .fuse_unk = true}};
    for (int32_t id = 0; id < size(); ++id) {
      const auto i = static_cast<size_t>(id);
      const TokenKind kind = parts_->kinds[i];
      usable.push_back(kind == TokenKind::normal || kind == TokenKind::user_defined);
      if (kind == TokenKind::normal) options.min_score = std::min(options.min_score, numbers[i]);
      if (kind == TokenKind::byte) options.unknown.byte_fallback = true;
      if (kind != TokenKind::user_defined) continue;
      numbers[i] = 0;  // more likely than any other
      normalizer.user_defined.emplace_back(parts_->vocabulary.text(id));
    }
    parts_->normalizer.push_back(sentencepiece_normalizer(std::move(normalizer)));
    parts_->detokenizer = space_decoder(parts_->special.add_space_prefix);
    parts_->model = make_unigram(parts_->vocabulary, std::move(numbers), usable, std::move(options));
    read_added(true);
  }

  void read_wordpiece() {
    BertOptions normalizer;
    normalizer.lowercase = metadata_.boolean_or(key("normalizer.lowercase"), true);
    normalizer.strip_accents = metadata_.boolean_or(key("normalizer.strip_accents"), normalizer.lowercase);
    parts_->normalizer.push_back(bert_normalizer(normalizer));
    parts_->pre_tokenizer.steps.push_back(split_by_class(CharClass::whitespace, SplitBehavior::removed));
    parts_->pre_tokenizer.steps.push_back(split_by_class(CharClass::bert_punctuation, SplitBehavior::isolated));
    if (!parts_->special.unk) parts_->special.unk = 100;  // BERT's, as llama.cpp assumes
    if (*parts_->special.unk >= size()) metadata_.fail_at(key("unknown_token_id"), "must be in the vocabulary");
    parts_->model = make_wordpiece(
        parts_->vocabulary,
        {.source = source(), .continuing_prefix = "", .word_prefix = std::string(kSpaceSymbol), .unk = *parts_->special.unk, .control = control_ids(*parts_)});
    parts_->detokenizer = space_decoder(true);
    if (!parts_->special.bos) parts_->special.bos = id_of(metadata_, "cls_token_id", size());
    if (!parts_->special.eos) parts_->special.eos = id_of(metadata_, "seperator_token_id", size());  // so spelled in GGUF
    parts_->special.add_bos = parts_->special.bos.has_value();
    parts_->special.add_eos = parts_->special.eos.has_value();
    read_added(true);
  }

  void finish() {
    SpecialTokens& special = parts_->special;
    special.add_bos = metadata_.boolean_or(key("add_bos_token"), special.add_bos) && special.bos;
    special.add_eos = metadata_.boolean_or(key("add_eos_token"), special.add_eos) && special.eos;
    if (special.add_bos) parts_->prefix.push_back(*special.bos);
    if (special.add_eos) parts_->suffix.push_back(*special.eos);
    std::vector<int32_t> named;
    for (const char* name : {"eot_token_id", "eom_token_id"}) {
      if (const auto id = id_of(metadata_, name, size())) named.push_back(*id);
    }
    find_end_of_generation(*parts_, named);
  }

  const Metadata& metadata_;
  std::unique_ptr<TokenizerParts> parts_;
};

}  // namespace

std::shared_ptr<const Tokenizer> tokenizer_from_metadata(const Metadata& metadata) {
  if (!metadata.has(key("tokens")) && metadata.has("tokenizer.huggingface.json")) {
    return tokenizer_from_json(metadata.text("tokenizer.huggingface.json"), "", metadata.source() + ": tokenizer.huggingface.json");
  }
  return std::make_shared<Tokenizer>(GgufReader(metadata).read());
}

}  // namespace frugal::text
