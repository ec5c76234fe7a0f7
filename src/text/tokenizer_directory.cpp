// A Hugging Face directory: which file holds the tokenizer.
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "text/tokenizer.h"
#include "text/tokenizer_parts.h"
#include "text/unicode.h"

namespace frugal::text {
namespace {

constexpr size_t kMaxFileBytes = size_t{512} << 20;

bool is_file(const std::filesystem::path& path) {
  std::error_code ignored;
  return std::filesystem::is_regular_file(path, ignored);
}

// vocab.txt of BERT as the tokenizer.json that `tokenizers` makes of it.
std::string wordpiece_json(const std::string& vocab_txt, bool lowercase, const std::string& path) {
  Json vocab = Json::object(), added = Json::array();
  std::vector<std::string> lines;
  for (size_t at = 0; at < vocab_txt.size();) {
    const size_t end = std::min(vocab_txt.find('\n', at), vocab_txt.size());
    lines.push_back(vocab_txt.substr(at, end - at));
    if (lines.back().ends_with('\r')) lines.back().pop_back();
    at = end + 1;
  }
  std::string members;
  for (size_t id = 0; id < lines.size(); ++id) {
    if (!is_valid_utf8(lines[id])) fail(ErrorKind::corrupt_file, "{}: line {} is not UTF-8", path, id + 1);
    members += fmt::format("{}{}:{}", id ? "," : "", Json(lines[id]).dump(), id);
    for (const char* special : {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}) {
      if (lines[id] == special) added.push_back({{"id", id}, {"content", special}, {"special", true}, {"normalized", false}});
    }
  }
  const auto id_of = [&](std::string_view token) {
    for (const Json& item : added) {
      if (item["content"].get<std::string>() == token) return item["id"].get<int64_t>();
    }
    fail(ErrorKind::corrupt_file, "{}: no {} among its {} tokens", path, token, lines.size());
  };
  const Json post = {{"type", "BertProcessing"}, {"cls", {"[CLS]", id_of("[CLS]")}}, {"sep", {"[SEP]", id_of("[SEP]")}}};
  return fmt::format(R"({{"added_tokens":{},"normalizer":{{"type":"BertNormalizer","lowercase":{}}},"pre_tokenizer":{{"type":"BertPreTokenizer"}},)"
                     R"("post_processor":{},"decoder":{{"type":"WordPiece"}},"model":{{"type":"WordPiece","unk_token":"[UNK]","vocab":{{{}}}}}}})",
                     added.dump(), lowercase, post.dump(), members);
}

}  // namespace

std::shared_ptr<const Tokenizer> load_tokenizer_directory(const std::string& path) {
  const std::filesystem::path folder(path);
  const std::string config_path = (folder / "tokenizer_config.json").string();
  const std::string config = is_file(config_path) ? read_text_file(config_path, 64 << 20) : std::string();
  if (is_file(folder / "tokenizer.json")) {
    const std::string file = (folder / "tokenizer.json").string();
    return tokenizer_from_json(read_text_file(file, kMaxFileBytes), config, file);
  }
  for (const char* name : {"tokenizer.model", "spiece.model"}) {
    if (!is_file(folder / name)) continue;
    const std::string file = (folder / name).string();
    const std::string bytes = read_text_file(file, kMaxFileBytes);
    return tokenizer_from_sentencepiece(std::as_bytes(std::span(bytes)), file, config);
  }
  if (is_file(folder / "vocab.txt")) {
    const Json parsed = config.empty() ? Json::object() : parse_json(config, config_path);
    const bool lowercase = JsonObject(parsed, config_path).boolean_or("do_lower_case", true);
    const std::string file = (folder / "vocab.txt").string();
    return tokenizer_from_json(wordpiece_json(read_text_file(file, kMaxFileBytes), lowercase, file), config, file);
  }
  fail(ErrorKind::invalid_input, "{}: none of tokenizer.json, tokenizer.model, spiece.model and vocab.txt is there", path);
}

}  // namespace frugal::text
