// A tokenizer from text files: what is cut how, trained, and written as the files that `tokenizers`, transformers and
// load_tokenizer_directory() read.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "text/train/bpe_trainer.h"
#include "text/train/unigram_trainer.h"

namespace frugal::text {

enum class TrainerType { bpe, unigram };
enum class Normalization { none, nfc, nfkc };

struct TokenizerTrainerOptions {
  TrainerType type = TrainerType::bpe;
  Normalization normalization = Normalization::none;
  int64_t vocab_size = 30000;
  std::vector<std::string> special_tokens = {};                                // the first ids, in this order, then the four below if they are not among them
  std::string bos_token = {}, eos_token = {}, unk_token = {}, pad_token = {};  // empty: none
  std::string pattern = "gpt-2";                                               // bpe: a name of split_table()
  bool byte_fallback = false;                                                  // unigram: 256 byte tokens, for characters that are no tokens
  BpeTrainerOptions bpe = {};                                                  // vocab_size and special_tokens are taken from here above, unk_token too
  UnigramTrainerOptions unigram = {};
  std::string chat_template = {};
};

struct TrainedTokenizer {
  Json tokenizer;  // tokenizer.json
  Json config;     // tokenizer_config.json
  int64_t vocabulary = 0, merges = 0;
  int64_t words = 0, bytes = 0;  // distinct words, and bytes read
};

// Throws what WordCounter and the trainers throw, and Error{invalid_input} for special tokens that are empty, no UTF-8 or named twice.
TrainedTokenizer train_tokenizer(const std::vector<std::string>& files, const TokenizerTrainerOptions& options);

// tokenizer.json, tokenizer_config.json and, where there is one, chat_template.jinja.
void write_tokenizer(const TrainedTokenizer& tokenizer, const std::string& directory);

}  // namespace frugal::text
