#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "text/tokenizer_json_parts.h"

namespace frugal::text {
namespace {

constexpr int64_t kMaxTokens = 16 << 20;

// The type may be missing in old files; then the keys tell.
std::string model_type(const JsonObject& model) {
  if (model.has("type")) return model.text("type");
  if (model.has("merges")) return "BPE";
  const Json* vocab = model.find("vocab");
  if (vocab && vocab->is_array()) return "Unigram";
  if (model.has("continuing_subword_prefix") && model.has("max_input_chars_per_word")) return "WordPiece";
  model.fail_at("type", "must be BPE, Unigram, WordPiece or WordLevel");
}

std::vector<std::string> vocabulary_of_object(const JsonObject& model, const Json& vocab) {
  std::vector<std::string> texts;
  std::vector<bool> taken;
  for (const auto& [text, id] : vocab.items()) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() >= kMaxTokens) {
      fail(ErrorKind::corrupt_file, "{}.vocab: the id of \"{}\" must be an integer in 0..{}, is {}", model.path(), printable(text), kMaxTokens - 1,
           printable(id.dump(-1, ' ', true, Json::error_handler_t::replace)));
    }
    const auto at = id.get<size_t>();
    // Few gaps are normal (models drop tokens); an id far beyond the number of tokens is a mistake and would cost memory.
    if (at >= vocab.size() * 2 + 4096) {
      fail(ErrorKind::corrupt_file, "{}.vocab: \"{}\" has id {} but there are {} tokens", model.path(), printable(text), at, vocab.size());
    }
    if (at >= texts.size()) {
      texts.resize(at + 1);
      taken.resize(at + 1);
    }
    if (taken[at]) fail(ErrorKind::corrupt_file, "{}.vocab: \"{}\" and \"{}\" have the same id {}", model.path(), printable(texts[at]), printable(text), at);
    taken[at] = true;
    texts[at] = text;
  }
  return texts;
}

std::optional<int32_t> named_token(const JsonObject& model, std::string_view key, const TokenizerParts& parts) {
  if (!model.has(key)) return std::nullopt;
  const std::string text = model.text(key);
  const int32_t id = parts.vocabulary.find(text);
  if (id < 0) model.fail_at(key, "must be a token of the vocabulary");
  return id;
}

void read_bpe(const JsonObject& model, TokenizerParts& parts) {
  if (model.number_or("dropout", 0, 0, 1) != 0) fail(ErrorKind::unsupported, "{}: dropout is for training only", model.path());
  const Json* list = model.find("merges");
  if (!list || !list->is_array()) model.fail_at("merges", "must be an array");
  std::vector<std::pair<std::string_view, std::string_view>> merges;
  merges.reserve(list->size());
  for (size_t i = 0; i < list->size(); ++i) {
    const Json& merge = (*list)[i];
    if (merge.is_string()) {
      const std::string_view text = merge.get_ref<const std::string&>();
      const size_t space = text.find(' ');
      if (space != std::string_view::npos && space > 0 && space + 1 < text.size() && text.find(' ', space + 1) == std::string_view::npos) {
        merges.emplace_back(text.substr(0, space), text.substr(space + 1));
        continue;
      }
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      merges.emplace_back(merge[0].get_ref<const std::string&>(), merge[1].get_ref<const std::string&>());
      continue;
    }
    fail(ErrorKind::corrupt_file, "{}.merges[{}]: must be \"left right\" or [\"left\", \"right\"]", model.path(), i);
  }
  BpeOptions options{.source = model.path()};
  options.byte_level = parts.pre_tokenizer.byte_level;
  options.ignore_merges = model.boolean_or("ignore_merges", false);
  options.subword_prefix = model.text_or("continuing_subword_prefix", "");
  options.end_of_word = model.text_or("end_of_word_suffix", "");
  options.unknown.unk = named_token(model, "unk_token", parts);
  options.unknown.byte_fallback = model.boolean_or("byte_fallback", false);
  options.unknown.fuse_unk = model.boolean_or("fuse_unk", false);
  options.control = control_ids(parts);
  if (!parts.special.unk) parts.special.unk = options.unknown.unk;
  if (options.byte_level && (!options.subword_prefix.empty() || !options.end_of_word.empty() || options.unknown.byte_fallback)) {
    fail(ErrorKind::unsupported, "{}: a byte-level model with subword marks or byte fallback is not supported", model.path());
  }
  parts.model = make_bpe(parts.vocabulary, merges, std::move(options));
}

void read_unigram(const JsonObject& model, TokenizerParts& parts) {
  const Json& vocab = *model.find("vocab");
  UnigramOptions options{.source = model.path(), .unknown = {}};
  if (model.has("unk_id")) options.unknown.unk = static_cast<int32_t>(model.integer("unk_id", 0, static_cast<int64_t>(vocab.size()) - 1));
  options.unknown.byte_fallback = model.boolean_or("byte_fallback", false);
  options.unknown.fuse_unk = true;
  std::vector<double> scores(static_cast<size_t>(parts.vocabulary.size()), 0);
  std::vector<bool> usable(scores.size(), false);
  double lowest = 0;
  for (size_t i = 0; i < vocab.size(); ++i) {
    scores[i] = vocab[i][1].get<double>();
    if (!std::isfinite(scores[i])) fail(ErrorKind::corrupt_file, "{}.vocab[{}]: the score must be finite", model.path(), i);
    lowest = i == 0 ? scores[0] : std::min(lowest, scores[i]);
    const TokenKind kind = parts.kinds[i];
    usable[i] = kind != TokenKind::control && kind != TokenKind::unknown && !(options.unknown.unk && static_cast<size_t>(*options.unknown.unk) == i);
  }
  options.min_score = lowest;
  if (!parts.special.unk) parts.special.unk = options.unknown.unk;
  // With byte fallback, "<0x41>" in the text must not become that byte.
  for (size_t i = 0; i < usable.size() && options.unknown.byte_fallback; ++i) {
    if (parse_byte_token(parts.vocabulary.text(static_cast<int32_t>(i))) >= 0) usable[i] = false;
  }
  parts.model = make_unigram(parts.vocabulary, std::move(scores), usable, std::move(options));
}

void read_wordpiece(const JsonObject& model, TokenizerParts& parts) {
  const auto unk = named_token(model, "unk_token", parts);
  if (!unk) model.fail_at("unk_token", "must name the unknown token");
  if (!parts.special.unk) parts.special.unk = unk;
  parts.model = make_wordpiece(parts.vocabulary, {.source = model.path(),
                                                  .continuing_prefix = model.text_or("continuing_subword_prefix", "##"),
                                                  .unk = *unk,
                                                  .max_chars = static_cast<size_t>(model.integer_or("max_input_chars_per_word", 100, 0, 1 << 20)),
                                                  .control = control_ids(parts)});
}

}  // namespace

std::vector<std::string> read_model_vocabulary(const JsonObject& model) {
  const std::string type = model_type(model);
  if (type != "BPE" && type != "Unigram" && type != "WordPiece" && type != "WordLevel") {
    fail(ErrorKind::unsupported, "{}: type \"{}\" is not supported", model.path(), printable(type));
  }
  const Json* vocab = model.find("vocab");
  if (!vocab || vocab->empty()) model.fail_at("vocab", "must hold at least one token");
  if (vocab->size() > kMaxTokens) fail(ErrorKind::corrupt_file, "{}.vocab: more than {} tokens", model.path(), kMaxTokens);
  if (type != "Unigram") {
    if (!vocab->is_object()) fail(ErrorKind::corrupt_file, "{}.vocab: must be an object from token to id", model.path());
    return vocabulary_of_object(model, *vocab);
  }
  if (!vocab->is_array()) fail(ErrorKind::corrupt_file, "{}.vocab: must be an array of [token, score]", model.path());
  std::vector<std::string> texts;
  for (size_t i = 0; i < vocab->size(); ++i) {
    const Json& item = (*vocab)[i];
    if (!item.is_array() || item.size() != 2 || !item[0].is_string() || !item[1].is_number()) {
      fail(ErrorKind::corrupt_file, "{}.vocab[{}]: must be [token, score]", model.path(), i);
    }
    texts.push_back(item[0].get<std::string>());
  }
  return texts;
}

void read_model(const JsonObject& model, TokenizerParts& parts) {
  const std::string type = model_type(model);
  if (type == "BPE") {
    read_bpe(model, parts);
  } else if (type == "Unigram") {
    read_unigram(model, parts);
  } else if (type == "WordPiece") {
    read_wordpiece(model, parts);
  } else {
    const auto unk = model.has("unk_token") ? parts.vocabulary.find(model.text("unk_token")) : -1;
    if (unk >= 0 && !parts.special.unk) parts.special.unk = unk;
    parts.model = make_wordlevel(parts.vocabulary, {.unk = unk >= 0 ? std::optional(unk) : std::nullopt, .control = control_ids(parts)});
  }
  if (parts.pre_tokenizer.byte_level && type != "BPE") {
    // The byte map was kept for the model to do; only BPE does it.
    parts.pre_tokenizer.steps.push_back(map_bytes());
    parts.pre_tokenizer.byte_level = false;
  }
}

}  // namespace frugal::text
