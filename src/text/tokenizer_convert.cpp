#include "text/tokenizer_convert.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/log.h"
#include "text/sentencepiece.h"
#include "text/split_table.h"
#include "text/tokenizer_json_parts.h"
#include "text/unicode.h"

namespace frugal::text {
namespace {

std::string key(std::string_view name) { return fmt::format("tokenizer.ggml.{}", name); }

std::string dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::strict); }

// ---- to GGUF -------------------------------------------------------------------------------------------------------

// The ids and flags that a tokenizer reports of itself.
void set_special(const SpecialTokens& special, std::string_view model, Metadata& out) {
  const bool bert = model == "bert";
  const auto set = [&](std::string_view name, std::optional<int32_t> id) {
    if (id) out.set(key(name), static_cast<uint64_t>(*id));
  };
  set(bert ? "cls_token_id" : "bos_token_id", special.bos);
  set(bert ? "seperator_token_id" : "eos_token_id", special.eos);  // so spelled in GGUF
  set("unknown_token_id", special.unk);
  set("padding_token_id", special.pad);
  if (bert) return;
  out.set(key("add_bos_token"), special.add_bos);
  out.set(key("add_eos_token"), special.add_eos);
}

std::string bert_text(std::string_view text, TokenKind kind) {  // "##ing" -> "ing", "the" -> "▁the"
  if (kind == TokenKind::control || kind == TokenKind::unknown) return std::string(text);
  return text.starts_with("##") ? std::string(text.substr(2)) : std::string(kSpaceSymbol) + std::string(text);
}

// Kinds as in GGUF; gaps of the vocabulary get a name, since GGUF tokens may not repeat.
void set_tokens(const Tokenizer& tokenizer, const std::vector<TokenKind>& kinds, bool bert, Metadata& out) {
  std::vector<std::string> tokens;
  std::vector<int64_t> types;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    TokenKind kind = kinds[static_cast<size_t>(id)];
    std::string text(tokenizer.token_text(id));
    if (text.empty()) {
      text = fmt::format("[PAD{}]", id);
      kind = TokenKind::unused;
    } else if (bert) {
      text = bert_text(text, kind);
    }
    tokens.push_back(std::move(text));
    types.push_back(static_cast<int64_t>(kind));
  }
  out.set(key("tokens"), std::move(tokens));
  out.set(key("token_type"), std::move(types));
}

std::vector<std::string> merge_texts(const JsonObject& model) {
  std::vector<std::string> merges;
  for (const Json& merge : *model.find("merges")) {
    std::string text = merge.is_string() ? merge.get<std::string>() : merge[0].get<std::string>() + " " + merge[1].get<std::string>();
    merges.push_back(std::move(text));
  }
  return merges;
}

// The kinds of a tokenizer.json's tokens: what `added_tokens` says, bytes, and the unknown token.
std::vector<TokenKind> kinds_of(const Tokenizer& tokenizer, const JsonObject& root, bool bytes) {
  std::vector<TokenKind> kinds(static_cast<size_t>(tokenizer.vocab_size()), TokenKind::normal);
  for (int32_t id = 0; bytes && id < tokenizer.vocab_size(); ++id) {
    if (parse_byte_token(tokenizer.token_text(id)) >= 0) kinds[static_cast<size_t>(id)] = TokenKind::byte;
  }
  if (!root.has("added_tokens")) return kinds;
  for (const JsonObject& token : read_objects(root, "added_tokens")) {
    const auto id = static_cast<size_t>(token.integer("id", 0, tokenizer.vocab_size() - 1));
    kinds[id] = token.boolean_or("special", false) ? TokenKind::control : TokenKind::user_defined;
  }
  return kinds;
}

void convert_bpe(const Tokenizer& tokenizer, const JsonObject& root, const JsonObject& model, Metadata& out) {
  if (model.boolean_or("byte_fallback", false)) {
    // SentencePiece as BPE: GGUF wants scores, of which only the order counts. The order of the merges is that order.
    out.set(key("model"), std::string("llama"));
    out.set(key("pre"), std::string("default"));
    std::vector<TokenKind> kinds = kinds_of(tokenizer, root, true);
    if (tokenizer.special().unk) kinds[static_cast<size_t>(*tokenizer.special().unk)] = TokenKind::unknown;
    std::vector<double> scores(kinds.size(), -1e9);  // no merge makes it
    double next = 0;
    for (const Json& merge : *model.find("merges")) {
      std::string text = merge.is_string() ? merge.get<std::string>() : merge[0].get<std::string>() + merge[1].get<std::string>();
      if (merge.is_string()) std::erase(text, ' ');
      const auto id = tokenizer.find(text);
      if (id && scores[static_cast<size_t>(*id)] == -1e9) scores[static_cast<size_t>(*id)] = next--;
    }
    for (size_t id = 0; id < scores.size(); ++id) {
      if (kinds[id] != TokenKind::normal) scores[id] = 0;
    }
    set_tokens(tokenizer, kinds, false, out);
    out.set(key("scores"), std::move(scores));
    out.set(key("add_space_prefix"), tokenizer.special().add_space_prefix);
    return;
  }
  const Json* pre = root.find("pre_tokenizer");
  const SplitRow* row = pre ? row_of_pre_tokenizer(*pre, model.boolean_or("ignore_merges", false)) : nullptr;
  if (!row) {
    fail(ErrorKind::unsupported, "{}.pre_tokenizer: no tokenizer.ggml.pre of GGUF stands for it, is {}", root.path(),
         printable(pre ? dump(*pre) : "missing", 400));
  }
  out.set(key("model"), std::string("gpt2"));
  out.set(key("pre"), std::string(row->names.front()));
  set_tokens(tokenizer, kinds_of(tokenizer, root, false), false, out);
  out.set(key("merges"), merge_texts(model));
}

void convert_unigram(const Tokenizer& tokenizer, const JsonObject& root, const JsonObject& model, Metadata& out) {
  out.set(key("model"), std::string("t5"));
  out.set(key("pre"), std::string("default"));
  std::vector<TokenKind> kinds = kinds_of(tokenizer, root, model.boolean_or("byte_fallback", false));
  if (model.has("unk_id")) kinds[static_cast<size_t>(model.integer("unk_id", 0, tokenizer.vocab_size() - 1))] = TokenKind::unknown;
  std::vector<double> scores(kinds.size(), 0);
  const Json& vocab = *model.find("vocab");
  for (size_t id = 0; id < vocab.size(); ++id) scores[id] = vocab[id][1].get<double>();
  set_tokens(tokenizer, kinds, false, out);
  out.set(key("scores"), std::move(scores));
  out.set(key("add_space_prefix"), tokenizer.special().add_space_prefix);
  out.set(key("remove_extra_whitespaces"), true);
  const Json* normalizer = root.find("normalizer");
  if (!normalizer || !normalizer->is_object()) return;
  std::vector<Json> open{*normalizer};
  for (int i = 0; !open.empty() && i < 64; ++i) {
    const Json step = open.back();
    open.pop_back();
    if (step.value("type", "") == "Sequence") open.insert(open.end(), step["normalizers"].begin(), step["normalizers"].end());
    if (step.value("type", "") != "Precompiled") continue;
    std::vector<uint64_t> bytes;
    for (const char c : base64_decode(step.value("precompiled_charsmap", ""), root.path())) bytes.push_back(static_cast<uint8_t>(c));
    if (!bytes.empty()) out.set(key("precompiled_charsmap"), std::move(bytes));
  }
}

void convert_wordpiece(const Tokenizer& tokenizer, const JsonObject& root, const JsonObject& model, Metadata& out) {
  if (model.text_or("continuing_subword_prefix", "##") != "##") model.fail_at("continuing_subword_prefix", "must be ## for GGUF");
  out.set(key("model"), std::string("bert"));
  out.set(key("pre"), std::string("default"));
  set_tokens(tokenizer, kinds_of(tokenizer, root, false), true, out);
  if (const Json* normalizer = root.find("normalizer"); normalizer && normalizer->is_object() && normalizer->value("type", "") == "BertNormalizer") {
    const JsonObject step(*normalizer, root.path() + ".normalizer");
    const bool lowercase = step.boolean_or("lowercase", true);
    out.set(key("normalizer.lowercase"), lowercase);
    out.set(key("normalizer.strip_accents"), step.boolean_or("strip_accents", lowercase));
  }
}

// ---- to tokenizer.json ---------------------------------------------------------------------------------------------

Json special_piece(const std::string& token) { return {{"SpecialToken", {{"id", token}, {"type_id", 0}}}}; }

// A template that puts BOS before and EOS after, or null.
Json template_json(const Tokenizer& tokenizer) {
  const SpecialTokens& special = tokenizer.special();
  if (!special.add_bos && !special.add_eos) return nullptr;
  Json single = Json::array(), pair = Json::array(), tokens = Json::object();
  const auto put = [&](int32_t id) {
    const std::string text(tokenizer.token_text(id));
    single.push_back(special_piece(text));
    pair.push_back(special_piece(text));
    tokens[text] = {{"id", text}, {"ids", {id}}, {"tokens", {text}}};
  };
  if (special.add_bos) put(*special.bos);
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  pair.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  if (special.add_eos) put(*special.eos);
  pair.push_back({{"Sequence", {{"id", "B"}, {"type_id", 1}}}});
  if (special.add_eos) pair.push_back(special_piece(std::string(tokenizer.token_text(*special.eos))));
  return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", tokens}};
}

Json added_token_json(int32_t id, std::string_view text, bool special) {
  return {{"id", id},        {"content", std::string(text)}, {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false},          {"special", special}};
}

std::vector<TokenKind> kinds_of(const Metadata& metadata, int32_t size) {
  std::vector<TokenKind> kinds(static_cast<size_t>(size), TokenKind::normal);
  if (!metadata.has(key("token_type"))) return kinds;
  const auto types = metadata.integers(key("token_type"));
  for (size_t i = 0; i < kinds.size(); ++i) kinds[i] = static_cast<TokenKind>(types[i]);
  return kinds;
}

// An object from token to id; texts that repeat keep the first id.
Json vocabulary_json(const Tokenizer& tokenizer) {
  Json vocab = Json::object();
  auto& members = vocab.get_ref<Json::object_t&>();
  using Members = std::vector<Json::object_t::value_type, Json::object_t::Container::allocator_type>;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {  // operator[] would search all earlier keys
    if (tokenizer.find(tokenizer.token_text(id)) == id) static_cast<Members&>(members).emplace_back(std::string(tokenizer.token_text(id)), Json(id));
  }
  return vocab;
}

Json space_decoder_json(bool strip) {
  Json steps = {{{"type", "Replace"}, {"pattern", {{"String", kSpaceSymbol}}}, {"content", " "}}, {{"type", "ByteFallback"}}, {{"type", "Fuse"}}};
  if (strip) steps.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  return {{"type", "Sequence"}, {"decoders", steps}};
}

Json bpe_model_json(const Tokenizer& tokenizer, Json merges) {
  return {{"type", "BPE"},     {"dropout", nullptr},     {"unk_token", nullptr},   {"continuing_subword_prefix", nullptr}, {"end_of_word_suffix", nullptr},
          {"fuse_unk", false}, {"byte_fallback", false}, {"ignore_merges", false}, {"vocab", vocabulary_json(tokenizer)},  {"merges", std::move(merges)}};
}

void fill_byte_level(const Metadata& metadata, const Tokenizer& tokenizer, Json& out) {
  const SplitRow& row = find_split(metadata.text_or(key("pre"), "default"), metadata.source());
  Json merges = Json::array();
  for (const std::string& merge : metadata.texts(key("merges"))) {
    const size_t space = merge.find(' ', 1);
    merges.push_back({merge.substr(0, space), merge.substr(space + 1)});
  }
  out["pre_tokenizer"] = pre_tokenizer_json(row);
  out["decoder"] = {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}};
  out["model"] = bpe_model_json(tokenizer, std::move(merges));
  out["model"]["ignore_merges"] = row.ignore_merges;
}

// Merges of SentencePiece BPE: each cut of each token into two tokens, best token first. `tokenizers` breaks ties of
// equal rank by position only if ranks are equal, which a list cannot say: equal scores are ordered by id, as its own
// converter does.
Json score_merges(const Tokenizer& tokenizer, const std::vector<double>& scores, const std::vector<TokenKind>& kinds) {
  struct Cut {
    float score;
    int32_t result, left, right;
  };
  std::vector<Cut> cuts;
  const auto usable = [&](std::optional<int32_t> id) {
    return id && (kinds[static_cast<size_t>(*id)] == TokenKind::normal || kinds[static_cast<size_t>(*id)] == TokenKind::user_defined);
  };
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    if (!usable(id)) continue;
    const std::string_view text = tokenizer.token_text(id);
    for (size_t cut = 1; cut < text.size(); ++cut) {
      if ((static_cast<uint8_t>(text[cut]) & 0xC0) == 0x80) continue;
      const auto left = tokenizer.find(text.substr(0, cut)), right = tokenizer.find(text.substr(cut));
      if (usable(left) && usable(right)) cuts.push_back({static_cast<float>(scores[static_cast<size_t>(id)]), id, *left, *right});
    }
  }
  std::stable_sort(cuts.begin(), cuts.end(), [](const Cut& a, const Cut& b) { return a.score > b.score; });
  Json merges = Json::array();
  for (const Cut& cut : cuts) merges.push_back({std::string(tokenizer.token_text(cut.left)), std::string(tokenizer.token_text(cut.right))});
  return merges;
}

void fill_score_bpe(const Metadata& metadata, const Tokenizer& tokenizer, const std::vector<TokenKind>& kinds, Json& out) {
  Json steps = Json::array();
  if (tokenizer.special().add_space_prefix) steps.push_back({{"type", "Prepend"}, {"prepend", kSpaceSymbol}});
  steps.push_back({{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", kSpaceSymbol}});
  out["normalizer"] = {{"type", "Sequence"}, {"normalizers", std::move(steps)}};
  out["decoder"] = space_decoder_json(tokenizer.special().add_space_prefix);
  out["model"] = bpe_model_json(tokenizer, score_merges(tokenizer, metadata.numbers(key("scores")), kinds));
  out["model"]["byte_fallback"] = true;
  if (tokenizer.special().unk) out["model"]["unk_token"] = std::string(tokenizer.token_text(*tokenizer.special().unk));
}

void fill_wordpiece(const Metadata& metadata, const Tokenizer& tokenizer, const std::vector<TokenKind>& kinds, Json& out) {
  std::vector<std::string> texts;
  Json added = Json::array();
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    const std::string_view text = tokenizer.token_text(id);
    const bool plain = kinds[static_cast<size_t>(id)] == TokenKind::normal;
    texts.push_back(!plain                                                            ? std::string(text)
                    : text.starts_with(kSpaceSymbol)                                  ? std::string(text.substr(kSpaceSymbol.size()))
                    : text.starts_with('[') && text.ends_with(']') && text.size() > 2 ? std::string(text)  // [unused7]
                                                                                      : "##" + std::string(text));
  }
  Json vocab = Json::object();
  auto& members = vocab.get_ref<Json::object_t&>();
  using Members = std::vector<Json::object_t::value_type, Json::object_t::Container::allocator_type>;
  for (size_t id = 0; id < texts.size(); ++id) static_cast<Members&>(members).emplace_back(texts[id], Json(id));
  const bool lowercase = metadata.boolean_or(key("normalizer.lowercase"), true);
  out["normalizer"] = {{"type", "BertNormalizer"},
                       {"clean_text", true},
                       {"handle_chinese_chars", true},
                       {"strip_accents", metadata.boolean_or(key("normalizer.strip_accents"), lowercase)},
                       {"lowercase", lowercase}};
  out["pre_tokenizer"] = {{"type", "BertPreTokenizer"}};
  out["decoder"] = {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}};
  out["model"] = {{"type", "WordPiece"},
                  {"unk_token", texts[static_cast<size_t>(*tokenizer.special().unk)]},
                  {"continuing_subword_prefix", "##"},
                  {"max_input_chars_per_word", 100},
                  {"vocab", std::move(vocab)}};
}

constexpr const char* kEmbedded = "tokenizer.huggingface.json";

// Whether this tokenizer.json has the tokens of `tokenizer`, id by id. (BERT's are spelled differently in GGUF.)
bool has_tokens_of(const std::string& json, const Tokenizer& tokenizer, const std::string& source) {
  try {
    const auto other = tokenizer_from_json(json, "", source);
    if (other->vocab_size() > tokenizer.vocab_size()) return false;
    for (int32_t id = 0; id < other->vocab_size(); ++id) {
      const std::string text(other->token_text(id));
      if (!text.empty() && text != tokenizer.token_text(id)) return false;  // a gap has a made-up name in GGUF
    }
    return other->special().bos == tokenizer.special().bos || !other->special().bos;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace

Metadata gguf_tokenizer_metadata(const Json& tokenizer_json, const Json& config) {
  const std::string name = "tokenizer.json";
  const std::string text = dump(tokenizer_json);
  const auto tokenizer = tokenizer_from_json(text, config.is_null() ? std::string() : dump(config), name);
  const JsonObject root(tokenizer_json, name);
  const JsonObject model = root.object("model");
  Metadata out(name);
  const std::string type = model.text_or("type", model.has("merges") ? "BPE" : "Unigram");
  if (type == "BPE") {
    convert_bpe(*tokenizer, root, model, out);
  } else if (type == "Unigram") {
    convert_unigram(*tokenizer, root, model, out);
  } else if (type == "WordPiece") {
    convert_wordpiece(*tokenizer, root, model, out);
  } else {
    fail(ErrorKind::unsupported, "{}: GGUF has no tokenizer.ggml.model for {}", model.path(), printable(type));
  }
  set_special(tokenizer->special(), out.text(key("model")), out);
  out.set("tokenizer.huggingface.json", text);
  return out;
}

Metadata gguf_tokenizer_metadata(std::span<const std::byte> sentencepiece_model, std::string_view name) {
  const SentencePieceModel model = read_sentencepiece(sentencepiece_model, name);
  const auto tokenizer = tokenizer_from_sentencepiece(sentencepiece_model, name);
  Metadata out{std::string(name)};
  std::vector<std::string> tokens;
  std::vector<double> scores;
  std::vector<int64_t> types;
  for (const auto& piece : model.pieces) {
    tokens.push_back(piece.text);
    scores.push_back(piece.score);
    types.push_back(static_cast<int64_t>(piece.kind));
  }
  out.set(key("model"), std::string(model.model_type == 1 ? "t5" : "llama"));
  out.set(key("pre"), std::string("default"));
  out.set(key("tokens"), std::move(tokens));
  out.set(key("scores"), std::move(scores));
  out.set(key("token_type"), std::move(types));
  out.set(key("add_space_prefix"), model.add_dummy_prefix);
  out.set(key("remove_extra_whitespaces"), model.remove_extra_whitespaces);
  if (!model.charsmap.empty() && model.model_type == 1) {
    std::vector<uint64_t> bytes;
    for (const char c : model.charsmap) bytes.push_back(static_cast<uint8_t>(c));
    out.set(key("precompiled_charsmap"), std::move(bytes));
  }
  set_special(tokenizer->special(), out.text(key("model")), out);
  return out;
}

Json tokenizer_json_from_metadata(const Metadata& metadata) {
  const auto tokenizer = tokenizer_from_metadata(metadata);
  if (metadata.has(kEmbedded)) {
    const std::string& text = metadata.text(kEmbedded);
    if (!metadata.has(key("model")) || metadata.text(key("model")) == "bert" || has_tokens_of(text, *tokenizer, metadata.source()))
      return parse_json(text, metadata.source());
    log_warning("{}: {} is another tokenizer than the file's own and is not used", metadata.source(), kEmbedded);
  }
  const std::vector<TokenKind> kinds = kinds_of(metadata, tokenizer->vocab_size());
  const std::string& model = metadata.text(key("model"));
  Json out = {{"version", "1.0"},
              {"truncation", nullptr},
              {"padding", nullptr},
              {"added_tokens", Json::array()},
              {"normalizer", nullptr},
              {"pre_tokenizer", nullptr},
              {"post_processor", template_json(*tokenizer)},
              {"decoder", nullptr},
              {"model", nullptr}};
  for (int32_t id = 0; id < tokenizer->vocab_size(); ++id) {
    const TokenKind kind = kinds[static_cast<size_t>(id)];
    const bool special = kind == TokenKind::control || kind == TokenKind::unknown;
    if (special || kind == TokenKind::user_defined) out["added_tokens"].push_back(added_token_json(id, tokenizer->token_text(id), special));
  }
  if (model == "gpt2") {
    fill_byte_level(metadata, *tokenizer, out);
  } else if (model == "llama") {
    fill_score_bpe(metadata, *tokenizer, kinds, out);
  } else if (model == "bert") {
    fill_wordpiece(metadata, *tokenizer, kinds, out);
  } else {
    fail(ErrorKind::unsupported, "{}: writing a tokenizer.json from tokenizer.ggml.model \"{}\" is not supported", metadata.source(), printable(model));
  }
  return out;
}

}  // namespace frugal::text
