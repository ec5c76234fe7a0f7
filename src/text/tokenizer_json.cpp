// Tokenizers from tokenizer.json, as `tokenizers` runs them.
#include "base/error.h"
#include "base/file.h"
#include "text/tokenizer_json_parts.h"

namespace frugal::text {
namespace {

constexpr size_t kMaxFileBytes = size_t{512} << 20;
constexpr int64_t kMaxId = 16 << 20;

class JsonReader {
 public:
  JsonReader(const JsonObject& root, const Json& config) : root_(root), config_(config), parts_(std::make_unique<TokenizerParts>()) {}

  std::unique_ptr<TokenizerParts> read() {
    const JsonObject model = root_.object("model");
    read_vocabulary(model);
    read_named_tokens();
    read_normalizer(root_.find("normalizer"), root_.path() + ".normalizer", parts_->normalizer);
    read_pre_tokenizer(root_.find("pre_tokenizer"), root_.path() + ".pre_tokenizer", parts_->pre_tokenizer);
    read_decoder(root_.find("decoder"), root_.path() + ".decoder", parts_->detokenizer);
    make_matchers();
    read_model(model, *parts_);
    read_post_processor(root_.find("post_processor"), root_.path() + ".post_processor", *parts_);
    finish();
    return std::move(parts_);
  }

 private:
  void read_vocabulary(const JsonObject& model) {
    std::vector<std::string> texts = read_model_vocabulary(model);
    std::vector<TokenKind> kinds(texts.size(), TokenKind::normal);
    if (root_.has("added_tokens")) {
      for (const JsonObject& token : read_objects(root_, "added_tokens")) read_added(token, texts, kinds);
    }
    for (size_t i = 0; i < texts.size(); ++i) {
      if (texts[i].empty()) kinds[i] = TokenKind::unused;  // a gap, or the empty token
    }
    parts_->vocabulary = Vocabulary(std::move(texts), true);
    parts_->kinds = std::move(kinds);
  }

  void read_added(const JsonObject& token, std::vector<std::string>& texts, std::vector<TokenKind>& kinds) {
    AddedToken added;
    added.content = token.text("content");
    added.id = static_cast<int32_t>(token.integer("id", 0, kMaxId));
    added.special = token.boolean_or("special", false);
    added.normalized = token.boolean_or("normalized", !added.special);
    added.lstrip = token.boolean_or("lstrip", false);
    added.rstrip = token.boolean_or("rstrip", false);
    added.single_word = token.boolean_or("single_word", false);
    if (added.content.empty()) token.fail_at("content", "must not be empty");
    const auto id = static_cast<size_t>(added.id);
    if (id >= texts.size()) {
      if (id > texts.size() * 2 + 4096) token.fail_at("id", fmt::format("is far beyond the {} tokens before it", texts.size()));
      texts.resize(id + 1);
      kinds.resize(id + 1, TokenKind::normal);
    }
    if (!texts[id].empty() && texts[id] != added.content) {
      token.fail_at("id", fmt::format("is already that of \"{}\", not of \"{}\"", printable(texts[id]), printable(added.content)));
    }
    texts[id] = added.content;
    kinds[id] = added.special ? TokenKind::control : TokenKind::user_defined;
    added_.push_back(std::move(added));
  }

  // In the config a special token is a string or an object with its content.
  std::optional<int32_t> config_token(const char* key) const {
    if (!config_.is_object() || !config_.contains(key) || config_[key].is_null()) return std::nullopt;
    const Json& value = config_[key];
    const Json* text = value.is_string() ? &value : value.is_object() && value.contains("content") ? &value["content"] : nullptr;
    if (!text || !text->is_string()) fail(ErrorKind::corrupt_file, "{}: tokenizer_config.{} must be a string or an object with content", root_.path(), key);
    const int32_t id = parts_->vocabulary.find(text->get<std::string>());
    // Configs name tokens that the vocabulary lacks (Qwen's unk); only bos and eos must be right.
    if (id < 0 && (std::string_view(key) == "bos_token" || std::string_view(key) == "eos_token")) {
      fail(ErrorKind::corrupt_file, "{}: tokenizer_config.{} names \"{}\", which is no token of the vocabulary", root_.path(), key,
           printable(text->get<std::string>()));
    }
    return id < 0 ? std::nullopt : std::optional(id);
  }

  void read_named_tokens() {
    parts_->special.bos = config_token("bos_token");
    parts_->special.eos = config_token("eos_token");
    parts_->special.unk = config_token("unk_token");
    parts_->special.pad = config_token("pad_token");
  }

  void make_matchers() {
    std::vector<AddedToken> raw, normalized;
    for (AddedToken& token : added_) {
      if (token.normalized) {
        token.content = apply_normalizer(parts_->normalizer, token.content);
        normalized.push_back(std::move(token));
      } else {
        raw.push_back(std::move(token));
      }
    }
    parts_->raw_added = AddedTokenMatcher(std::move(raw), root_.path());
    parts_->normalized_added = AddedTokenMatcher(std::move(normalized), root_.path());
  }

  bool config_flag(const char* key) const { return config_.is_object() && config_.contains(key) && config_[key].is_boolean() && config_[key].get<bool>(); }

  void finish() {
    SpecialTokens& special = parts_->special;
    auto& prefix = parts_->prefix;
    auto& suffix = parts_->suffix;
    // Files of the Llama family leave it to the config to say that BOS is wanted (DeepSeek).
    if (prefix.empty() && special.bos && config_flag("add_bos_token")) prefix.push_back(*special.bos);
    if (suffix.empty() && special.eos && config_flag("add_eos_token")) suffix.push_back(*special.eos);
    if (!special.bos && !prefix.empty()) special.bos = prefix.front();
    if (!special.eos && !suffix.empty()) special.eos = suffix.back();
    special.add_bos = !prefix.empty() && special.bos == prefix.front();
    special.add_eos = !suffix.empty() && special.eos == suffix.back();
    special.add_space_prefix = adds_space();
    find_end_of_generation(*parts_, {});
  }

  // Whether a plain word is encoded as if a space stood before it.
  bool adds_space() const {
    const std::string normalized = apply_normalizer(parts_->normalizer, "a");
    const Pieces pieces = pre_tokenize(parts_->pre_tokenizer, normalized, true);
    if (pieces.ranges.empty()) return false;
    const auto [begin, end] = pieces.ranges.front();
    const std::string_view first = std::string_view(pieces.text).substr(begin, end - begin);
    return first.starts_with(' ') || first.starts_with("\xE2\x96\x81") || first.starts_with("\xC4\xA0");
  }

  const JsonObject& root_;
  const Json& config_;
  std::unique_ptr<TokenizerParts> parts_;
  std::vector<AddedToken> added_;
};

}  // namespace

std::shared_ptr<const Tokenizer> tokenizer_from_json(std::string_view tokenizer_json, std::string_view tokenizer_config_json, std::string_view name) {
  const Json json = parse_json(tokenizer_json, name, {.max_bytes = kMaxFileBytes});
  const Json config = tokenizer_config_json.empty() ? Json() : parse_json(tokenizer_config_json, fmt::format("{} (tokenizer_config.json)", name));
  if (!config.is_null() && !config.is_object()) fail(ErrorKind::corrupt_file, "{}: tokenizer_config.json must be an object", name);
  const JsonObject root(json, std::string(name));
  return std::make_shared<Tokenizer>(JsonReader(root, config).read());
}

}  // namespace frugal::text
