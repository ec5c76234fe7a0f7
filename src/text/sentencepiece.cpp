// SentencePiece models (tokenizer.model, spiece.model): a protobuf message ModelProto, read with bounds by hand. Only the
// fields that encoding needs are kept; a scalar that comes twice counts the last time, as protobuf says.
#include "text/sentencepiece.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <unordered_set>

#include "base/bounded_reader.h"
#include "base/error.h"
#include "base/json.h"
#include "text/tokenizer_parts.h"
#include "text/unicode.h"

namespace frugal::text {
namespace {

constexpr size_t kMaxPieces = 16 << 20;

// One field of a message. `number` holds varint and fixed values, `bytes` a length-delimited one.
struct Field {
  uint32_t id = 0;
  uint32_t wire = 0;
  uint64_t number = 0;
  std::span<const std::byte> bytes = {};
  uint64_t position = 0;
};

uint64_t read_varint(BoundedReader& reader) {
  uint64_t value = 0;
  for (uint32_t shift = 0; shift < 70; shift += 7) {
    const auto byte = reader.read<uint8_t>("a varint");
    if (shift == 63 && byte > 1) reader.fail_here("a varint does not fit in 64 bits");
    value |= static_cast<uint64_t>(byte & 0x7F) << shift;
    if ((byte & 0x80) == 0) return value;
  }
  reader.fail_here("a varint is longer than 10 bytes");
}

Field read_field(BoundedReader& reader) {
  Field field;
  const uint64_t tag = read_varint(reader);
  if (tag >> 3 == 0 || tag >> 3 > 536870911) reader.fail_here("field number {} is not valid. Perhaps this is no SentencePiece model?", tag >> 3);
  field.id = static_cast<uint32_t>(tag >> 3);
  field.wire = static_cast<uint32_t>(tag & 7);
  field.position = reader.position();
  switch (field.wire) {
    case 0: field.number = read_varint(reader); break;
    case 1: field.number = reader.read<uint64_t>("a fixed64 field"); break;
    case 2: {
      const uint64_t length = read_varint(reader);
      field.position = reader.position();
      field.bytes = reader.take(length, fmt::format("field {}", field.id));
      break;
    }
    case 5: field.number = reader.read<uint32_t>("a fixed32 field"); break;
    default: reader.fail_here("wire type {} is not supported (groups are not part of a SentencePiece model)", field.wire);
  }
  return field;
}

void expect(const BoundedReader& reader, const Field& field, uint32_t wire, std::string_view name) {
  if (field.wire != wire) reader.fail_here("{} has wire type {}, not {}", name, field.wire, wire);
}

std::string_view text_of(const Field& field) { return {reinterpret_cast<const char*>(field.bytes.data()), field.bytes.size()}; }

class ModelReader {
 public:
  ModelReader(std::span<const std::byte> bytes, std::string_view name) : reader_(bytes, std::string(name)) {}

  SentencePieceModel read() {
    while (!reader_.at_end()) {
      const Field field = read_field(reader_);
      if (field.id == 1) {
        expect(reader_, field, 2, "pieces");
        read_piece(field);
      } else if (field.id == 2) {
        expect(reader_, field, 2, "trainer_spec");
        read_trainer(field);
      } else if (field.id == 3) {
        expect(reader_, field, 2, "normalizer_spec");
        read_normalizer_spec(field);
      }
    }
    check();
    return std::move(model_);
  }

 private:
  BoundedReader inner(const Field& field) const { return {field.bytes, reader_.name(), field.position}; }

  void read_piece(const Field& outer) {
    if (model_.pieces.size() >= kMaxPieces) reader_.fail_here("more than {} pieces", kMaxPieces);
    SentencePieceModel::Piece piece;
    BoundedReader reader = inner(outer);
    while (!reader.at_end()) {
      const Field field = read_field(reader);
      if (field.id == 1) {
        expect(reader, field, 2, "piece");
        piece.text = text_of(field);
      } else if (field.id == 2) {
        expect(reader, field, 5, "score");
        piece.score = std::bit_cast<float>(static_cast<uint32_t>(field.number));
      } else if (field.id == 3) {
        expect(reader, field, 0, "type");
        if (field.number < 1 || field.number > 6) reader.fail_here("piece {}: type {} must be in 1..6", model_.pieces.size(), field.number);
        piece.kind = static_cast<TokenKind>(field.number);
      }
    }
    model_.pieces.push_back(std::move(piece));
  }

  void read_trainer(const Field& outer) {
    BoundedReader reader = inner(outer);
    while (!reader.at_end()) {
      const Field field = read_field(reader);
      if (field.id == 3) model_.model_type = integer(reader, field, "model_type");
      if (field.id == 4) model_.vocab_size = integer(reader, field, "vocab_size");
      if (field.id == 24) model_.whitespace_as_suffix = integer(reader, field, "treat_whitespace_as_suffix") != 0;
      if (field.id == 35) model_.byte_fallback = integer(reader, field, "byte_fallback") != 0;
      if (field.id == 41) model_.bos = integer(reader, field, "bos_id");
      if (field.id == 42) model_.eos = integer(reader, field, "eos_id");
      if (field.id == 43) model_.pad = integer(reader, field, "pad_id");
    }
  }

  void read_normalizer_spec(const Field& outer) {
    BoundedReader reader = inner(outer);
    while (!reader.at_end()) {
      const Field field = read_field(reader);
      if (field.id == 2) {
        expect(reader, field, 2, "precompiled_charsmap");
        model_.charsmap = text_of(field);
      }
      if (field.id == 3) model_.add_dummy_prefix = integer(reader, field, "add_dummy_prefix") != 0;
      if (field.id == 4) model_.remove_extra_whitespaces = integer(reader, field, "remove_extra_whitespaces") != 0;
      if (field.id == 5) model_.escape_whitespaces = integer(reader, field, "escape_whitespaces") != 0;
    }
  }

  static int32_t integer(const BoundedReader& reader, const Field& field, std::string_view name) {
    expect(reader, field, 0, name);
    const auto value = static_cast<int64_t>(field.number);  // int32 is sign-extended on the wire
    if (value < INT32_MIN || value > INT32_MAX) reader.fail_here("{} {} does not fit in 32 bits", name, value);
    return static_cast<int32_t>(value);
  }

  // What sentencepiece itself refuses to load, and what would make ids ambiguous.
  void check() const {
    const auto& pieces = model_.pieces;
    if (pieces.empty()) reader_.fail_here("no pieces. Perhaps this is no SentencePiece model?");
    if (model_.model_type != 1 && model_.model_type != 2) {
      fail(ErrorKind::unsupported, "{}: model_type {} is not supported; unigram (1) and BPE (2) are", reader_.name(), model_.model_type);
    }
    if (model_.vocab_size != 0 && static_cast<size_t>(model_.vocab_size) != pieces.size()) {
      reader_.fail_here("vocab_size is {} but there are {} pieces", model_.vocab_size, pieces.size());
    }
    std::unordered_set<std::string_view> seen;
    std::unordered_set<int> bytes;
    int unknown = 0;
    for (size_t id = 0; id < pieces.size(); ++id) {
      const auto& piece = pieces[id];
      if (piece.text.empty()) reader_.fail_here("piece {} is empty", id);
      if (!is_valid_utf8(piece.text)) reader_.fail_here("piece {} is not valid UTF-8", id);
      if (!seen.insert(piece.text).second) reader_.fail_here("piece {} (\"{}\") occurs twice", id, printable(piece.text));
      if (!std::isfinite(piece.score)) reader_.fail_here("piece {}: the score is not finite", id);
      unknown += piece.kind == TokenKind::unknown;
      if (piece.kind == TokenKind::byte) {
        if (!model_.byte_fallback) reader_.fail_here("piece {} is a byte but byte_fallback is off", id);
        if (parse_byte_token(piece.text) < 0) reader_.fail_here("piece {} (\"{}\") is no byte", id, printable(piece.text));
        bytes.insert(parse_byte_token(piece.text));
      }
    }
    if (unknown != 1) reader_.fail_here("{} unknown pieces, there must be one", unknown);
    if (model_.byte_fallback && bytes.size() != 256) reader_.fail_here("byte_fallback with {} of 256 byte pieces", bytes.size());
  }

  BoundedReader reader_;
  SentencePieceModel model_;
};

std::optional<int32_t> existing(const Vocabulary& vocabulary, int32_t id, TokenKind kind, const std::vector<TokenKind>& kinds) {
  if (id < 0 || id >= vocabulary.size() || kinds[static_cast<size_t>(id)] != kind) return std::nullopt;
  return id;
}

}  // namespace

SentencePieceModel read_sentencepiece(std::span<const std::byte> bytes, std::string_view name) { return ModelReader(bytes, name).read(); }

std::shared_ptr<const Tokenizer> tokenizer_from_sentencepiece(std::span<const std::byte> bytes, std::string_view name, std::string_view tokenizer_config) {
  const SentencePieceModel model = read_sentencepiece(bytes, name);
  auto parts = std::make_unique<TokenizerParts>();
  std::vector<std::string> texts;
  std::vector<AddedToken> control, user_defined;
  SentencePieceOptions normalizer;
  for (const auto& piece : model.pieces) {
    const auto id = static_cast<int32_t>(texts.size());
    texts.push_back(piece.text);
    parts->kinds.push_back(piece.kind);
    const bool special = piece.kind == TokenKind::control || piece.kind == TokenKind::unknown;
    if (piece.kind == TokenKind::unknown) parts->special.unk = id;
    if (special) control.push_back({.id = id, .content = piece.text, .special = true});
    if (piece.kind == TokenKind::user_defined) {
      normalizer.user_defined.push_back(piece.text);
      user_defined.push_back({.id = id, .content = piece.text, .normalized = true});
    }
  }
  parts->vocabulary = Vocabulary(std::move(texts), true);
  parts->raw_added = AddedTokenMatcher(std::move(control), name);
  normalizer.charsmap = Charsmap(model.charsmap, name);
  normalizer.add_dummy_prefix = model.add_dummy_prefix;
  normalizer.remove_extra_whitespaces = model.remove_extra_whitespaces;
  normalizer.escape_whitespaces = model.escape_whitespaces;
  normalizer.whitespace_as_suffix = model.whitespace_as_suffix;
  parts->normalizer.push_back(sentencepiece_normalizer(std::move(normalizer)));

  const UnknownOptions unknown{.unk = parts->special.unk, .byte_fallback = model.byte_fallback, .fuse_unk = true};
  std::vector<bool> usable;
  for (const TokenKind kind : parts->kinds) usable.push_back(kind == TokenKind::normal || kind == TokenKind::user_defined);
  parts->special.bos = existing(parts->vocabulary, model.bos, TokenKind::control, parts->kinds);
  parts->special.eos = existing(parts->vocabulary, model.eos, TokenKind::control, parts->kinds);
  parts->special.pad = existing(parts->vocabulary, model.pad, TokenKind::control, parts->kinds);
  if (model.model_type == 1) {
    std::vector<double> scores;
    float lowest = 0, highest = 0;
    bool first = true;
    for (const auto& piece : model.pieces) {
      scores.push_back(piece.score);
      if (piece.kind != TokenKind::normal) continue;
      lowest = first ? piece.score : std::min(lowest, piece.score);
      highest = first ? piece.score : std::max(highest, piece.score);
      first = false;
    }
    for (size_t id = 0; id < scores.size(); ++id) {
      // SentencePiece's bonus for user-defined pieces: a longer one beats whatever could replace it.
      if (parts->kinds[id] == TokenKind::user_defined) scores[id] = static_cast<double>(model.pieces[id].text.size()) * highest - 0.1;
    }
    parts->model = make_unigram(parts->vocabulary, std::move(scores), usable, {.source = std::string(name), .unknown = unknown, .min_score = lowest});
    parts->special.add_eos = parts->special.eos.has_value();
  } else {
    std::vector<float> scores;
    for (const auto& piece : model.pieces) scores.push_back(piece.score);
    parts->normalized_added = AddedTokenMatcher(std::move(user_defined), name);
    parts->model = make_score_bpe(parts->vocabulary, scores, usable, {.source = std::string(name), .unknown = unknown});
    parts->special.add_bos = parts->special.bos.has_value();
  }
  parts->special.add_space_prefix = model.add_dummy_prefix && !model.whitespace_as_suffix;
  if (!tokenizer_config.empty()) {
    const Json parsed = parse_json(tokenizer_config, "tokenizer_config.json");
    const JsonObject config(parsed, "tokenizer_config.json");
    parts->special.add_bos = config.boolean_or("add_bos_token", parts->special.add_bos) && parts->special.bos;
    parts->special.add_eos = config.boolean_or("add_eos_token", parts->special.add_eos) && parts->special.eos;
  }
  if (parts->special.add_bos) parts->prefix.push_back(*parts->special.bos);
  if (parts->special.add_eos) parts->suffix.push_back(*parts->special.eos);

  using Kind = DecoderStep::Kind;
  parts->detokenizer = {{.kind = Kind::replace, .text = std::string(kSpaceSymbol), .replacement = " "}, {.kind = Kind::byte_fallback}, {.kind = Kind::fuse}};
  if (parts->special.add_space_prefix) parts->detokenizer.push_back({.kind = Kind::strip, .text = " ", .start = 1});
  find_end_of_generation(*parts, {});
  return std::make_shared<Tokenizer>(std::move(parts));
}

}  // namespace frugal::text
