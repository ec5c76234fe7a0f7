#include "text/train/tokenizer_trainer.h"

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "text/split_table.h"
#include "text/tokenizer_json_parts.h"
#include "text/unicode.h"

namespace frugal::text {
namespace {

Json normalizer_json(Normalization normalization) {
  switch (normalization) {
    case Normalization::none: return nullptr;
    case Normalization::nfc: return {{"type", "NFC"}};
    case Normalization::nfkc: return {{"type", "NFKC"}};
  }
  return nullptr;
}

Json metaspace_json() { return {{"type", "Metaspace"}, {"replacement", kSpaceSymbol}, {"prepend_scheme", "always"}, {"split", true}}; }

Json pre_tokenizer_json(const TokenizerTrainerOptions& options) {
  return options.type == TrainerType::bpe ? pre_tokenizer_json(find_split(options.pattern, "the pattern")) : metaspace_json();
}

Json decoder_json(const TokenizerTrainerOptions& options) {
  if (options.type == TrainerType::bpe) return {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}};
  if (!options.byte_fallback) return metaspace_json();
  return {{"type", "Sequence"}, {"decoders", {{{"type", "ByteFallback"}}, metaspace_json()}}};
}

std::vector<std::string> all_special_tokens(const TokenizerTrainerOptions& options) {
  std::vector<std::string> tokens = options.special_tokens;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i].empty()) fail(ErrorKind::invalid_input, "special token {} is empty", i + 1);
    if (std::find(tokens.begin(), tokens.begin() + static_cast<ptrdiff_t>(i), tokens[i]) != tokens.begin() + static_cast<ptrdiff_t>(i)) {
      fail(ErrorKind::invalid_input, "the special token \"{}\" is named twice", printable(tokens[i]));
    }
  }
  for (const std::string& named : {options.unk_token, options.bos_token, options.eos_token, options.pad_token}) {
    if (!named.empty() && std::find(tokens.begin(), tokens.end(), named) == tokens.end()) tokens.push_back(named);
  }
  for (const std::string& token : tokens) {
    if (!is_valid_utf8(token)) fail(ErrorKind::invalid_input, "the special token \"{}\" is not UTF-8", printable(token));
  }
  return tokens;
}

Json bpe_json(const TrainedBpe& trained, const TokenizerTrainerOptions& options) {
  // Collected first: an ordered object looks each assigned key up in linear time.
  std::vector<std::pair<std::string, Json>> vocabulary;
  for (size_t id = 0; id < trained.tokens.size(); ++id) vocabulary.emplace_back(trained.tokens[id], id);
  Json merges = Json::array();
  for (const auto& [left, right] : trained.merges) merges.push_back({trained.tokens[static_cast<size_t>(left)], trained.tokens[static_cast<size_t>(right)]});
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", options.unk_token.empty() ? Json() : Json(options.unk_token)},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", false},
          {"byte_fallback", false},
          {"ignore_merges", find_split(options.pattern, "the pattern").ignore_merges},
          {"vocab", Json(Json::object_t(vocabulary.begin(), vocabulary.end()))},
          {"merges", std::move(merges)}};
}

Json unigram_json(const TrainedUnigram& trained, bool byte_fallback) {
  Json vocabulary = Json::array();
  for (const UnigramPiece& piece : trained.pieces) vocabulary.push_back({piece.text, piece.score});
  return {{"type", "Unigram"}, {"unk_id", trained.unk_id ? Json(*trained.unk_id) : Json()}, {"vocab", std::move(vocabulary)}, {"byte_fallback", byte_fallback}};
}

Json train_model(const std::vector<WordCount>& words, const std::vector<std::string>& special_tokens, const TokenizerTrainerOptions& options,
                 TrainedTokenizer& result) {
  if (options.type == TrainerType::bpe) {
    BpeTrainerOptions bpe = options.bpe;
    bpe.vocab_size = options.vocab_size;
    bpe.special_tokens = special_tokens;
    const TrainedBpe trained = train_bpe(words, bpe);
    result.vocabulary = static_cast<int64_t>(trained.tokens.size());
    result.merges = static_cast<int64_t>(trained.merges.size());
    return bpe_json(trained, options);
  }
  UnigramTrainerOptions unigram = options.unigram;
  unigram.vocab_size = options.vocab_size;
  unigram.special_tokens = special_tokens;
  unigram.unk_token = options.unk_token;
  for (int byte = 0; byte < 256 && options.byte_fallback; ++byte) unigram.special_tokens.push_back(byte_token(byte));
  const TrainedUnigram trained = train_unigram(words, unigram);
  result.vocabulary = static_cast<int64_t>(trained.pieces.size());
  return unigram_json(trained, options.byte_fallback);
}

Json config_json(const std::vector<std::string>& special_tokens, const TokenizerTrainerOptions& options) {
  Json config = {{"tokenizer_class", "PreTrainedTokenizerFast"}, {"clean_up_tokenization_spaces", false}};
  std::vector<std::string> others = special_tokens;
  const auto add = [&](const char* key, const std::string& token) {
    if (token.empty()) return;
    config[key] = token;
    std::erase(others, token);
  };
  add("bos_token", options.bos_token);
  add("eos_token", options.eos_token);
  add("unk_token", options.unk_token);
  add("pad_token", options.pad_token);
  if (!others.empty()) config["additional_special_tokens"] = others;
  if (!options.chat_template.empty()) config["chat_template"] = options.chat_template;
  return config;
}

}  // namespace

TrainedTokenizer train_tokenizer(const std::vector<std::string>& files, const TokenizerTrainerOptions& options) {
  const std::vector<std::string> special_tokens = all_special_tokens(options);
  // What cuts the training text is read from the very file that is written.
  const Json normalizer_section = normalizer_json(options.normalization), pre_tokenizer_section = pre_tokenizer_json(options);
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  read_normalizer(&normalizer_section, "normalizer", normalizer);
  read_pre_tokenizer(&pre_tokenizer_section, "pre_tokenizer", pre_tokenizer);
  WordCounter counter(normalizer, pre_tokenizer);
  counter.add_files(files);
  const std::vector<WordCount> words = counter.take();
  if (words.empty()) fail(ErrorKind::invalid_input, "nothing to train on: {} hold no text", fmt::join(files, ", "));
  TrainedTokenizer result;
  result.bytes = counter.bytes();
  result.words = static_cast<int64_t>(words.size());
  Json model = train_model(words, special_tokens, options, result);
  const auto id_of = [&](const std::string& token) -> int64_t {
    const Json& vocabulary = model["vocab"];
    if (vocabulary.is_object()) return vocabulary[token].get<int64_t>();
    return std::find_if(vocabulary.begin(), vocabulary.end(), [&](const Json& piece) { return piece[0] == token; }) - vocabulary.begin();
  };
  Json added = Json::array();
  for (const std::string& token : special_tokens) {
    added.push_back(
        {{"id", id_of(token)}, {"content", token}, {"single_word", false}, {"lstrip", false}, {"rstrip", false}, {"normalized", false}, {"special", true}});
  }
  result.tokenizer = {{"version", "1.0"},
                      {"truncation", nullptr},
                      {"padding", nullptr},
                      {"added_tokens", std::move(added)},
                      {"normalizer", normalizer_section},
                      {"pre_tokenizer", pre_tokenizer_section},
                      {"post_processor", nullptr},
                      {"decoder", decoder_json(options)},
                      {"model", std::move(model)}};
  result.config = config_json(special_tokens, options);
  return result;
}

void write_tokenizer(const TrainedTokenizer& tokenizer, const std::string& directory) {
  write_text_file(directory + "/tokenizer.json", tokenizer.tokenizer.dump(2) + "\n");
  write_text_file(directory + "/tokenizer_config.json", tokenizer.config.dump(2) + "\n");
  if (tokenizer.config.contains("chat_template")) write_text_file(directory + "/chat_template.jinja", tokenizer.config["chat_template"].get<std::string>());
}

}  // namespace frugal::text
