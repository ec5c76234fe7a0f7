// What tokenizer trainers learn from: how often each word (a piece that the pre-tokenizer cuts) occurs in text files.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/normalizer.h"
#include "text/pre_tokenizer.h"

namespace frugal::text {

struct WordCount {
  std::string word;
  int64_t count;
};

// Files are read line by line, each line with its ending a text of its own, as `tokenizers` reads them. They are mapped and let
// go again as they are read: only the words are held.
class WordCounter {
 public:
  // Both must outlive the counter.
  WordCounter(const Normalizer& normalizer, const PreTokenizer& pre_tokenizer);

  // Throws Error{corrupt_file} with byte and line where a file is not UTF-8, Error{io} where it cannot be read.
  void add_files(const std::vector<std::string>& paths);

  int64_t bytes() const { return bytes_; }  // read so far
  std::vector<WordCount> take();            // ordered by word: the result does not depend on the number of threads

 private:
  struct Hash : std::hash<std::string_view> {
    using is_transparent = void;
  };
  using Table = std::unordered_map<std::string, int64_t, Hash, std::equal_to<>>;

  void add_lines(std::string_view lines, Table& table) const;
  void add_block(std::string_view block);

  const Normalizer& normalizer_;
  const PreTokenizer& pre_tokenizer_;
  std::vector<Table> tables_;  // one per thread
  int64_t bytes_ = 0;
};

}  // namespace frugal::text
