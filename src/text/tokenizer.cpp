#include "text/tokenizer.h"

#include <algorithm>

#include "base/error.h"
#include "text/tokenizer_parts.h"
#include "text/unicode.h"

namespace frugal::text {
namespace {

void check_id(int32_t id, const Vocabulary& vocabulary) {
  if (id < 0 || id >= vocabulary.size()) {
    fail(ErrorKind::invalid_input, "token id {} is outside 0..{}", id, vocabulary.size() - 1);
  }
}

bool is_control(TokenKind kind) { return kind == TokenKind::control || kind == TokenKind::unknown; }

void check_limit(size_t count, size_t limit) {
  if (count > limit) throw TooManyTokens(count, limit);
}

void encode_pieces(const TokenizerParts& parts, const Pieces& pieces, size_t limit, std::vector<int32_t>& ids) {
  for (const auto& [begin, end] : pieces.ranges) {
    const std::string_view piece = std::string_view(pieces.text).substr(begin, end - begin);
    check_limit(ids.size() + parts.model->least_ids(piece), limit);  // one word of a megabyte is not encoded to be counted
    parts.model->encode(piece, ids);
    check_limit(ids.size(), limit);
  }
}

// As many pieces as have more tokens than the limit are enough; where some have none, more of them are looked for.
void encode_plain(const TokenizerParts& parts, std::string_view text, bool at_start, size_t limit, std::vector<int32_t>& ids) {
  const size_t before = ids.size();
  for (size_t most = std::min(limit - before, SIZE_MAX / 2) + 2;; most *= 2) {
    const Pieces pieces = pre_tokenize(parts.pre_tokenizer, std::string(text), at_start, most);
    encode_pieces(parts, pieces, limit, ids);
    if (!pieces.cut) return;
    ids.resize(before);
  }
}

// A text without raw added tokens: normalized, searched for the other added tokens, cut into pieces, encoded.
void encode_part(const TokenizerParts& parts, std::string_view text, bool at_start, const EncodeOptions& options, std::vector<int32_t>& ids) {
  const std::string normalized = apply_normalizer(parts.normalizer, std::string(text));
  const std::vector<TextPart> split =
      parts.normalized_added.empty() ? std::vector<TextPart>{{0, normalized.size(), -1}} : parts.normalized_added.split(normalized, options.parse_special);
  for (const TextPart& part : split) {
    if (part.id >= 0)
      ids.push_back(part.id);
    else
      encode_plain(parts, std::string_view(normalized).substr(part.begin, part.end - part.begin), at_start && part.begin == 0, options.limit, ids);
    check_limit(ids.size(), options.limit);
  }
}

}  // namespace

Tokenizer::Tokenizer(std::unique_ptr<const TokenizerParts> parts) : parts_(std::move(parts)) {}
Tokenizer::~Tokenizer() = default;

std::vector<int32_t> Tokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  std::vector<int32_t> ids;
  if (options.add_special) ids = parts_->prefix;
  for (const TextPart& part : parts_->raw_added.split(text, options.parse_special)) {
    if (part.id >= 0)
      ids.push_back(part.id);
    else
      encode_part(*parts_, text.substr(part.begin, part.end - part.begin), options.at_start && part.begin == 0, options, ids);
    check_limit(ids.size(), options.limit);
  }
  if (options.add_special) ids.insert(ids.end(), parts_->suffix.begin(), parts_->suffix.end());
  check_limit(ids.size(), options.limit);
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  std::vector<DecodedToken> tokens;
  tokens.reserve(ids.size());
  for (const int32_t id : ids) {
    check_id(id, parts_->vocabulary);
    if (skip_special && is_special(id)) continue;
    const TokenKind kind = parts_->kinds[static_cast<size_t>(id)];
    tokens.push_back({std::string(parts_->vocabulary.text(id)), is_control(kind) || kind == TokenKind::user_defined});
  }
  return detokenize(parts_->detokenizer, std::move(tokens), true);
}

std::string Tokenizer::piece(int32_t id) const {
  check_id(id, parts_->vocabulary);
  const TokenKind kind = parts_->kinds[static_cast<size_t>(id)];
  if (is_control(kind)) return std::string(parts_->vocabulary.text(id));
  return detokenize(parts_->detokenizer, {{std::string(parts_->vocabulary.text(id)), kind == TokenKind::user_defined}}, false);
}

std::string_view Tokenizer::token_text(int32_t id) const {
  check_id(id, parts_->vocabulary);
  return parts_->vocabulary.text(id);
}

int32_t Tokenizer::vocab_size() const { return parts_->vocabulary.size(); }

std::optional<int32_t> Tokenizer::find(std::string_view token) const {
  const int32_t id = parts_->vocabulary.find(token);
  return id < 0 ? std::nullopt : std::optional(id);
}

bool Tokenizer::is_special(int32_t id) const {
  check_id(id, parts_->vocabulary);
  return is_control(parts_->kinds[static_cast<size_t>(id)]);
}

const SpecialTokens& Tokenizer::special() const { return parts_->special; }

std::string StreamDecoder::push(int32_t id) {
  if (skip_special_ && tokenizer_->is_special(id)) return {};
  std::string bytes;
  if (at_start_ && !tokenizer_->is_special(id)) {
    bytes = tokenizer_->decode(std::span(&id, 1));  // the start of a text may lose its space
    at_start_ = false;
  } else {
    bytes = tokenizer_->piece(id);
  }
  held_ += bytes;
  const size_t tail = unfinished_tail(held_);
  std::string ready = replace_invalid_utf8(std::string_view(held_).substr(0, held_.size() - tail));
  held_.erase(0, held_.size() - tail);
  return ready;
}

std::string StreamDecoder::flush() {
  std::string rest = replace_invalid_utf8(held_);
  held_.clear();
  return rest;
}

std::vector<bool> control_ids(const TokenizerParts& parts) {
  std::vector<bool> result;
  for (const TokenKind kind : parts.kinds) result.push_back(is_control(kind));
  return result;
}

void find_end_of_generation(TokenizerParts& parts, const std::vector<int32_t>& named) {
  // The names by which published models end a turn or a text; files often tell only one of them.
  static constexpr std::string_view kNames[] = {"<|eot_id|>",
                                                "<|im_end|>",
                                                "<|end|>",
                                                "<|return|>",
                                                "<|call|>",
                                                "<end_of_turn>",
                                                "<|endoftext|>",
                                                "<|end_of_text|>",
                                                "<|eom_id|>",
                                                "<EOT>",
                                                "_<EOT>",
                                                "[EOT]",
                                                "[EOS]",
                                                "<\xEF\xBD\x9C"
                                                "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>",
                                                "<end_of_utterance>",
                                                "<|flush|>",
                                                "<|calls|>"};
  std::vector<int32_t>& ids = parts.special.end_of_generation;
  ids = named;
  if (parts.special.eos) ids.push_back(*parts.special.eos);
  for (const std::string_view name : kNames) {
    const int32_t id = parts.vocabulary.find(name);
    // In gpt-oss "<|end|>" ends a message, after which the model goes on.
    if (name == "<|end|>" && parts.vocabulary.find("<|return|>") >= 0) continue;
    if (id >= 0 && parts.kinds[static_cast<size_t>(id)] != TokenKind::normal) ids.push_back(id);
  }
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
}

}  // namespace frugal::text
