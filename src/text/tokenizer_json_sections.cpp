#include "base/error.h"
#include "text/split_table.h"
#include "text/tokenizer_json_parts.h"
#include "text/unicode.h"

namespace frugal::text {
namespace {

constexpr int kMaxSteps = 64;

[[noreturn]] void fail_type(const JsonObject& step, std::string_view what) {
  fail(ErrorKind::unsupported, "{}: {} of type \"{}\" is not supported", step.path(), what, printable(step.text("type")));
}

// Sequences inside sequences, flattened without recursion.
template <typename Visit>
void for_each_step(const Json* section, const std::string& path, std::string_view list_key, Visit visit) {
  if (!section || section->is_null()) return;
  std::vector<JsonObject> open{JsonObject(*section, path)};
  for (int steps = 0; !open.empty(); ++steps) {
    const JsonObject step = open.back();
    open.pop_back();
    if (steps > kMaxSteps) fail(ErrorKind::corrupt_file, "{}: more than {} steps", path, kMaxSteps);
    if (step.text("type") != "Sequence") {
      visit(step);
      continue;
    }
    const auto inner = read_objects(step, list_key);
    open.insert(open.end(), inner.rbegin(), inner.rend());
  }
}

SplitBehavior read_behavior(const JsonObject& step, std::string_view fallback) {
  const std::string name = step.text_or("behavior", fallback);
  if (name == "Removed") return SplitBehavior::removed;
  if (name == "Isolated") return SplitBehavior::isolated;
  if (name == "MergedWithPrevious") return SplitBehavior::merged_with_previous;
  if (name == "MergedWithNext") return SplitBehavior::merged_with_next;
  if (name == "Contiguous") return SplitBehavior::contiguous;
  step.fail_at("behavior", "must be Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous");
}

// prepend_scheme, or the older add_prefix_space.
PrependScheme read_prepend(const JsonObject& step) {
  const std::string scheme = step.text_or("prepend_scheme", step.boolean_or("add_prefix_space", true) ? "always" : "never");
  if (scheme == "always") return PrependScheme::always;
  if (scheme == "first") return PrependScheme::first;
  if (scheme == "never") return PrependScheme::never;
  step.fail_at("prepend_scheme", "must be always, first or never");
}

std::string read_replacement(const JsonObject& step) {
  std::string text = step.text_or("replacement", kSpaceSymbol);
  if (text.empty() || decode_char(text, 0).length != text.size()) step.fail_at("replacement", "must be one character");
  return text;
}

std::unique_ptr<const SplitStep> read_split(const JsonObject& step) {
  const JsonPattern pattern = read_pattern(step, "pattern");
  const SplitBehavior behavior = read_behavior(step, "Isolated");
  const bool invert = step.boolean_or("invert", false);
  if (!pattern.is_regex) return split_by_text(pattern.text, behavior, invert);
  return split_by_regex(pattern.text, behavior, invert, step.path());
}

void read_pre_tokenizer_step(const JsonObject& step, PreTokenizer& result) {
  const std::string type = step.text("type");
  auto& steps = result.steps;
  if (result.byte_level) {  // the byte map was not the last thing: later steps see its characters
    steps.push_back(map_bytes());
    result.byte_level = false;
  }
  if (type == "ByteLevel") {
    if (step.boolean_or("add_prefix_space", true)) steps.push_back(add_prefix_space());
    if (step.boolean_or("use_regex", true)) steps.push_back(split_by_regex(kGpt2Pattern, SplitBehavior::isolated, false, step.path()));
    result.byte_level = true;
  } else if (type == "Split") {
    steps.push_back(read_split(step));
  } else if (type == "Digits") {
    steps.push_back(split_by_class(CharClass::digit, step.boolean_or("individual_digits", false) ? SplitBehavior::isolated : SplitBehavior::contiguous));
  } else if (type == "Punctuation") {
    steps.push_back(split_by_class(CharClass::bert_punctuation, read_behavior(step, "Isolated")));
  } else if (type == "WhitespaceSplit") {
    steps.push_back(split_by_class(CharClass::whitespace, SplitBehavior::removed));
  } else if (type == "Whitespace") {
    // Rust's \w: letters and what counts as alphabetic, marks, digits, connectors, joiners.
    static constexpr std::string_view kWord =
        R"([\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{200c}\x{200d}\x{24b6}-\x{24e9}\x{1f130}-\x{1f149}\x{1f150}-\x{1f169}\x{1f170}-\x{1f189}]+|[^\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{200c}\x{200d}\x{24b6}-\x{24e9}\x{1f130}-\x{1f149}\x{1f150}-\x{1f169}\x{1f170}-\x{1f189}\s]+)";
    static const auto pattern = std::make_shared<const Pattern>(kWord, "Whitespace", true);
    steps.push_back(split_by_pattern(pattern, SplitBehavior::removed, true));
  } else if (type == "BertPreTokenizer") {
    steps.push_back(split_by_class(CharClass::whitespace, SplitBehavior::removed));
    steps.push_back(split_by_class(CharClass::bert_punctuation, SplitBehavior::isolated));
  } else if (type == "Metaspace") {
    steps.push_back(metaspace(read_replacement(step), read_prepend(step), step.boolean_or("split", true)));
  } else if (type == "CharDelimiterSplit") {
    steps.push_back(split_by_text(step.text("delimiter"), SplitBehavior::removed, false));
  } else {
    fail_type(step, "a pre-tokenizer");
  }
}

void read_normalizer_step(const JsonObject& step, Normalizer& steps) {
  const std::string type = step.text("type");
  if (type == "NFC") {
    steps.push_back(normal_form(NormalForm::nfc));
  } else if (type == "NFD") {
    steps.push_back(normal_form(NormalForm::nfd));
  } else if (type == "NFKC") {
    steps.push_back(normal_form(NormalForm::nfkc));
  } else if (type == "NFKD") {
    steps.push_back(normal_form(NormalForm::nfkd));
  } else if (type == "Lowercase") {
    steps.push_back(lowercase_step());
  } else if (type == "Strip") {
    steps.push_back(strip(step.boolean_or("strip_left", true), step.boolean_or("strip_right", true)));
  } else if (type == "StripAccents") {
    steps.push_back(strip_accents());
  } else if (type == "ByteLevel") {
    steps.push_back(visible_bytes());
  } else if (type == "Prepend") {
    steps.push_back(prepend(step.text("prepend")));
  } else if (type == "Replace") {
    const JsonPattern pattern = read_pattern(step, "pattern");
    if (pattern.text.empty()) step.fail_at("pattern", "must not be empty (it would match everywhere)");
    steps.push_back(pattern.is_regex ? replace_pattern(Pattern(pattern.text, step.path(), false), step.text("content"))
                                     : replace_text(pattern.text, step.text("content")));
  } else if (type == "Precompiled") {
    steps.push_back(precompiled(Charsmap(base64_decode(step.text_or("precompiled_charsmap", ""), step.path()), step.path())));
  } else if (type == "BertNormalizer") {
    BertOptions options;
    options.clean_text = step.boolean_or("clean_text", true);
    options.handle_chinese_chars = step.boolean_or("handle_chinese_chars", true);
    options.lowercase = step.boolean_or("lowercase", true);
    options.strip_accents = step.boolean_or("strip_accents", options.lowercase);
    steps.push_back(bert_normalizer(options));
  } else {
    fail_type(step, "a normalizer");
  }
}

void read_decoder_step(const JsonObject& step, Detokenizer& steps) {
  using Kind = DecoderStep::Kind;
  const std::string type = step.text("type");
  if (type == "ByteLevel") {
    steps.push_back({.kind = Kind::byte_level});
  } else if (type == "ByteFallback") {
    steps.push_back({.kind = Kind::byte_fallback});
  } else if (type == "Fuse") {
    steps.push_back({.kind = Kind::fuse});
  } else if (type == "Replace") {
    const JsonPattern pattern = read_pattern(step, "pattern");
    if (pattern.is_regex) fail(ErrorKind::unsupported, "{}: a decoder that replaces by a regex is not supported", step.path());
    steps.push_back({.kind = Kind::replace, .text = pattern.text, .replacement = step.text("content")});
  } else if (type == "Strip") {
    steps.push_back({.kind = Kind::strip,
                     .text = step.text_or("content", " "),
                     .start = static_cast<size_t>(step.integer_or("start", 0, 0, 1024)),
                     .stop = static_cast<size_t>(step.integer_or("stop", 0, 0, 1024))});
  } else if (type == "Metaspace") {
    steps.push_back({.kind = Kind::metaspace, .text = read_replacement(step), .flag = read_prepend(step) != PrependScheme::never});
  } else if (type == "WordPiece") {
    steps.push_back({.kind = Kind::wordpiece, .text = step.text_or("prefix", "##"), .flag = step.boolean_or("cleanup", true)});
  } else if (type == "BPEDecoder") {
    steps.push_back({.kind = Kind::word_end, .text = step.text_or("suffix", "</w>")});
  } else {
    fail_type(step, "a decoder");
  }
}

int32_t token_id(const TokenizerParts& parts, const JsonObject& where, std::string_view key, const std::string& token) {
  const int32_t id = parts.vocabulary.find(token);
  if (id < 0) where.fail_at(key, fmt::format("names \"{}\", which is no token of the vocabulary", printable(token)));
  return id;
}

constexpr size_t kMaxTemplatePieces = 256;

// Pieces of a template for one text: special tokens before and after the sequence A.
void read_template(const JsonObject& step, TokenizerParts& parts) {
  bool after = false;
  const JsonObject tokens = step.has("special_tokens") ? step.object("special_tokens") : JsonObject(step.json(), step.path());
  const std::vector<JsonObject> pieces = read_objects(step, "single");
  if (pieces.size() > kMaxTemplatePieces) step.fail_at("single", fmt::format("must have at most {} pieces", kMaxTemplatePieces));
  for (const JsonObject& piece : pieces) {
    if (piece.has("Sequence")) {
      const std::string id = piece.object("Sequence").text("id");
      if (id != "A") piece.fail_at("Sequence", "must be A in the template for one text");
      if (after) piece.fail_at("Sequence", "must occur once");
      after = true;
      continue;
    }
    const std::string name = piece.object("SpecialToken").text("id");
    auto& ids = after ? parts.suffix : parts.prefix;
    if (!step.has("special_tokens") || !tokens.has(name)) piece.fail_at("SpecialToken", "is not among the template's special_tokens");
    const JsonObject token = tokens.object(name);
    const Json* list = token.find("ids");
    if (!list || !list->is_array()) token.fail_at("ids", "must be an array of ids");
    for (const Json& id : *list) {
      if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() >= parts.vocabulary.size()) {
        token.fail_at("ids", fmt::format("must be ids below the {} tokens of the vocabulary", parts.vocabulary.size()));
      }
      ids.push_back(id.get<int32_t>());
    }
  }
  if (!after) step.fail_at("single", "must hold the sequence A");
}

void read_pair_of_token_and_id(const JsonObject& step, std::string_view key, TokenizerParts& parts, std::vector<int32_t>& ids) {
  const Json* pair = step.find(key);
  if (!pair || !pair->is_array() || pair->size() != 2 || !(*pair)[0].is_string()) step.fail_at(key, "must be [token, id]");
  ids.push_back(token_id(parts, step, key, (*pair)[0].get<std::string>()));
}

}  // namespace

std::vector<JsonObject> read_objects(const JsonObject& owner, std::string_view key) {
  const Json* list = owner.find(key);
  if (!list || !list->is_array()) owner.fail_at(key, "must be an array of objects");
  std::vector<JsonObject> result;
  for (size_t i = 0; i < list->size(); ++i) result.emplace_back((*list)[i], fmt::format("{}.{}[{}]", owner.path(), key, i));
  return result;
}

JsonPattern read_pattern(const JsonObject& owner, std::string_view key) {
  const Json* value = owner.find(key);
  if (value && value->is_string()) return {value->get<std::string>(), false};
  const JsonObject pattern = owner.object(key);
  if (pattern.has("String")) return {pattern.text("String"), false};
  return {pattern.text("Regex"), true};
}

void read_normalizer(const Json* section, const std::string& path, Normalizer& normalizer) {
  for_each_step(section, path, "normalizers", [&](const JsonObject& step) { read_normalizer_step(step, normalizer); });
}

void read_pre_tokenizer(const Json* section, const std::string& path, PreTokenizer& pre_tokenizer) {
  for_each_step(section, path, "pretokenizers", [&](const JsonObject& step) { read_pre_tokenizer_step(step, pre_tokenizer); });
}

void read_decoder(const Json* section, const std::string& path, Detokenizer& detokenizer) {
  for_each_step(section, path, "decoders", [&](const JsonObject& step) { read_decoder_step(step, detokenizer); });
}

void read_post_processor(const Json* section, const std::string& path, TokenizerParts& parts) {
  for_each_step(section, path, "processors", [&](const JsonObject& step) {
    const std::string type = step.text("type");
    if (type == "ByteLevel") return;  // changes offsets only
    if (type == "TemplateProcessing") {
      read_template(step, parts);
    } else if (type == "BertProcessing" || type == "RobertaProcessing") {
      read_pair_of_token_and_id(step, "cls", parts, parts.prefix);
      read_pair_of_token_and_id(step, "sep", parts, parts.suffix);
    } else {
      fail_type(step, "a post-processor");
    }
  });
}

std::string base64_decode(std::string_view text, std::string_view path) {
  static constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  uint32_t bits = 0;
  int count = 0;
  while (text.ends_with('=')) text.remove_suffix(1);
  for (const char c : text) {
    const size_t value = kAlphabet.find(c);
    if (value == std::string_view::npos) fail(ErrorKind::corrupt_file, "{}: not base64", path);
    bits = bits << 6 | static_cast<uint32_t>(value);
    count += 6;
    if (count >= 8) {
      count -= 8;
      out += static_cast<char>(bits >> count & 0xFF);
    }
  }
  return out;
}

}  // namespace frugal::text
