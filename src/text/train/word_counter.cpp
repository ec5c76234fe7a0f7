#include "text/train/word_counter.h"

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/progress.h"
#include "base/team.h"
#include "text/unicode.h"

namespace frugal::text {
namespace {

constexpr size_t kBlockBytes = size_t{4} << 20;  // of lines that the team shares between two stop points

// The end of the last line that ends at or before `end`, else of the line that goes on beyond it.
size_t end_of_lines(std::string_view text, size_t begin, size_t end) {
  if (end >= text.size()) return text.size();
  const size_t before = text.substr(begin, end - begin).rfind('\n');
  if (before != std::string_view::npos) return begin + before + 1;
  const size_t after = text.find('\n', end);
  return after == std::string_view::npos ? text.size() : after + 1;
}

[[noreturn]] void fail_encoding(std::string_view text, size_t block, std::string_view name) {
  size_t at = block;
  for (DecodedChar c; at < text.size(); at += c.length) {
    c = decode_char(text, at);
    if (!c.valid) break;
  }
  const auto line = std::count(text.begin(), text.begin() + static_cast<ptrdiff_t>(at), '\n') + 1;
  const bool utf16 = text.starts_with("\xFF\xFE") || text.starts_with("\xFE\xFF");
  fail(ErrorKind::corrupt_file, "{}: byte {} (line {}) is not UTF-8: \"{}\". Perhaps the file is {}? Convert it first, for example with iconv -t UTF-8", name,
       at, line, printable(text.substr(at, 4)), utf16 ? "UTF-16" : "in another encoding, or no text");
}

}  // namespace

WordCounter::WordCounter(const Normalizer& normalizer, const PreTokenizer& pre_tokenizer)
    : normalizer_(normalizer), pre_tokenizer_(pre_tokenizer), tables_(static_cast<size_t>(team_size())) {}

void WordCounter::add_lines(std::string_view lines, Table& table) const {
  for (size_t begin = 0; begin < lines.size();) {
    const size_t newline = lines.find('\n', begin);
    const size_t end = newline == std::string_view::npos ? lines.size() : newline + 1;
    const Pieces pieces = pre_tokenize(pre_tokenizer_, apply_normalizer(normalizer_, std::string(lines.substr(begin, end - begin))), true);
    for (const auto& [first, last] : pieces.ranges) {
      const std::string_view word = std::string_view(pieces.text).substr(first, last - first);
      if (const auto it = table.find(word); it != table.end()) {
        ++it->second;
      } else {
        table.emplace(word, 1);
      }
    }
    begin = end;
  }
}

// Each member of the team takes a stretch of whole lines.
void WordCounter::add_block(std::string_view block) {
  const size_t members = tables_.size();
  std::vector<size_t> cuts(members + 1, block.size());
  cuts[0] = 0;
  for (size_t i = 1; i < members; ++i) cuts[i] = end_of_lines(block, cuts[i - 1], std::max(cuts[i - 1], block.size() * i / members));
  parallel_for(static_cast<int64_t>(members), 1, [&](int64_t begin, int64_t end) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) add_lines(block.substr(cuts[i], cuts[i + 1] - cuts[i]), tables_[i]);
  });
}

void WordCounter::add_files(const std::vector<std::string>& paths) {
  int64_t total = 0;
  for (const std::string& path : paths) {
    std::error_code ignored;
    const auto size = std::filesystem::file_size(path, ignored);
    if (!ignored) total += static_cast<int64_t>(size);
  }
  Progress progress("counting words", total);
  for (const std::string& path : paths) {
    const auto file = MappedFile::open(path);
    const auto bytes = file->bytes();
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = end_of_lines(text, begin, begin + kBlockBytes);
      const std::string_view block = text.substr(begin, end - begin);
      if (!is_valid_utf8(block)) fail_encoding(text, begin, path);
      add_block(block);
      bytes_ += static_cast<int64_t>(block.size());
      release_mapped(bytes.subspan(begin, end - begin));
      begin = end;
      progress.step(static_cast<int64_t>(block.size()));
    }
  }
}

std::vector<WordCount> WordCounter::take() {
  Table all = std::move(tables_.front());
  for (size_t i = 1; i < tables_.size(); ++i) {
    for (auto it = tables_[i].begin(); it != tables_[i].end();) {
      auto node = tables_[i].extract(it++);
      const int64_t count = node.mapped();
      if (const auto inserted = all.insert(std::move(node)); !inserted.inserted) inserted.position->second += count;
    }
  }
  std::vector<WordCount> words;
  words.reserve(all.size());
  for (auto it = all.begin(); it != all.end();) {
    auto node = all.extract(it++);
    words.push_back({std::move(node.key()), node.mapped()});
  }
  tables_.assign(tables_.size(), {});
  std::sort(words.begin(), words.end(), [](const WordCount& a, const WordCount& b) { return a.word < b.word; });
  return words;
}

}  // namespace frugal::text
