#include "data/row_reader.h"

#include <algorithm>
#include <array>
#include <system_error>

#include "base/error.h"
#include "text/unicode.h"

namespace frugal::data {
namespace {

constexpr size_t kRows = 4096, kBytes = size_t{16} << 20;  // of one batch; one row may be longer
constexpr std::string_view kSpace = " \t\r\n";

struct Compression {
  std::string_view magic, name, program;
};
constexpr std::array<Compression, 5> kCompressions = {{{"\x1F\x8B", "gzip", "gunzip"},
                                                       {"\x28\xB5\x2F\xFD", "zstd", "unzstd"},
                                                       {"BZh", "bzip2", "bunzip2"},
                                                       {"\xFD\x37zXZ", "xz", "unxz"},
                                                       {"PK\x03\x04", "zip", "unzip"}}};

std::filesystem::file_time_type time_of(const std::string& path) {
  std::error_code code;
  const auto time = std::filesystem::last_write_time(path, code);
  if (code) fail(ErrorKind::io, "{}: cannot tell when it was written: {}", path, code.message());
  return time;
}

// About what a value takes in memory.
size_t size_of(const Json& value) {
  size_t size = sizeof value;
  if (value.is_string()) return size + value.get_ref<const std::string&>().size();
  if (value.is_structured()) {
    for (const Json& part : value) size += size_of(part);
  }
  return size;
}

bool is_utf8(const Json& value) {
  if (value.is_string()) return text::is_valid_utf8(value.get_ref<const std::string&>());
  return !value.is_structured() || std::ranges::all_of(value, is_utf8);
}

}  // namespace

DataFile::DataFile(const std::string& path) : file_(MappedFile::open(path)), written_(time_of(path)) {
  const std::string_view begin = text().substr(0, 8);
  for (const Compression& compression : kCompressions) {
    if (begin.starts_with(compression.magic))
      fail(ErrorKind::unsupported, "{}: is compressed ({}); unpack it first: {} {}", path, compression.name, compression.program, path);
  }
}

std::string_view DataFile::text() const {
  const std::string_view text(reinterpret_cast<const char*>(file_->bytes().data()), file_->bytes().size());
  return text.substr(text.starts_with("\xEF\xBB\xBF") ? 3 : 0);
}

void DataFile::require_unchanged() const {
  require_whole_mappings();
  std::error_code code;
  if (std::filesystem::file_size(path(), code) != size() || code || time_of(path()) != written_)
    fail(ErrorKind::io, "{}: was changed while it was read; start again when nothing writes to it", path());
}

JsonRows::JsonRows(const DataFile& file, bool list) : text_(file.text()) {
  if (!list) return;
  skip_space();
  list_ = at_ < text_.size() && text_[at_] == '[';
  if (list_) ++at_;
}

std::vector<RawRow> JsonRows::next() {
  give_back(at_);
  const size_t begin = at_;
  std::vector<RawRow> rows;
  RawRow row;
  while (rows.size() < kRows && at_ - begin < kBytes && (list_ ? next_element(row) : next_line(row))) rows.push_back(std::exchange(row, {}));
  return rows;
}

// What lies before `end` is read from the file again if it is needed once more.
void JsonRows::give_back(size_t end) {
  release_mapped(std::as_bytes(std::span(text_.substr(released_, end - released_))));
  released_ = end;
}

void JsonRows::skip_space() {
  while (at_ < text_.size() && kSpace.find(text_[at_]) != kSpace.npos) line_ += text_[at_++] == '\n';
}

bool JsonRows::next_line(RawRow& row) {
  skip_space();
  if (at_ == text_.size()) return false;
  row.line = line_;
  size_t end = at_;
  for (bool found = false; !found && end < text_.size();) {
    const std::string_view piece = text_.substr(end, kLongestRow + 1);
    const size_t at = piece.find('\n');
    found = at != piece.npos;
    end += found ? at : piece.size();
    if (!found) give_back(end);
  }
  row.text = text_.substr(at_, end - at_);
  at_ = end;
  if (row.text.size() > kLongestRow) {
    row.problem = fmt::format("a line of {} bytes, {} are allowed", row.text.size(), kLongestRow);
    row.text = {};
  }
  return true;
}

// Where the value that begins here ends: a bracket that closes it, or what comes after a number or word. Only brackets and texts are
// looked at: the parser sees the value.
size_t JsonRows::element_end() {
  size_t depth = 0;
  bool quoted = false;
  for (size_t i = at_; i < text_.size(); ++i) {
    if (i % kLongestRow == 0) give_back(i);
    const char c = text_[i];
    if (quoted) {
      if (c == '\\')
        ++i;
      else if (c == '"')
        quoted = false;
    } else if (c == '"') {
      quoted = true;
    } else if (c == '{' || c == '[') {
      ++depth;
    } else if (c == '}' || c == ']') {
      if (depth == 0) return i;
      if (--depth == 0) return i + 1;
    } else if (depth == 0 && c == ',') {
      return i;
    }
  }
  return text_.size();
}

bool JsonRows::next_element(RawRow& row) {
  skip_space();
  row.line = line_;
  const auto end_with = [&](std::string problem) {
    row.problem = std::move(problem);
    at_ = text_.size();
    list_ = false;
    return true;
  };
  if (at_ == text_.size()) return end_with("the list of rows has no end. Perhaps the file is cut short?");
  if (text_[at_] == ']') {
    ++at_;
    list_ = false;
    skip_space();
    row.line = line_;
    return at_ < text_.size() && end_with("something follows the list of rows");
  }
  if (!first_ && text_[at_] != ',') return end_with("the rows of a list must be separated by ','");
  if (!first_) {
    ++at_;
    skip_space();
    row.line = line_;
  }
  first_ = false;
  const size_t end = element_end();
  row.text = text_.substr(at_, end - at_);
  line_ += static_cast<uint64_t>(std::ranges::count(row.text, '\n'));
  at_ = end;
  if (row.text.size() > kLongestRow) {
    row.problem = fmt::format("a row of {} bytes, {} are allowed", row.text.size(), kLongestRow);
    row.text = {};
  }
  return true;
}

ParquetRows::ParquetRows(const DataFile& file, const std::vector<std::string>& fields) : reader_(file.bytes(), file.path(), fields), file_size_(file.size()) {}

std::vector<RawRow> ParquetRows::next() {
  std::vector<RawRow> rows;
  size_t bytes = 0;
  for (Json value; rows.size() < kRows && bytes < kBytes && reader_.next(value);) {
    RawRow& row = rows.emplace_back();
    row.line = ++row_;
    if (!is_utf8(value)) {
      row.problem = "texts that are not UTF-8";
      continue;
    }
    bytes += size_of(value);
    row.value = std::move(value);
  }
  return rows;
}

size_t ParquetRows::position() const {
  return reader_.rows() == 0 ? file_size_
                             : static_cast<size_t>(static_cast<double>(row_) / static_cast<double>(reader_.rows()) * static_cast<double>(file_size_));
}

std::unique_ptr<RowReader> open_rows(const DataFile& file, RowKind kind, const FieldNames& fields) {
  std::string extension = std::filesystem::path(file.path()).extension().string();
  std::ranges::transform(extension, extension.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (file.text().starts_with("PAR1") || extension == ".parquet") return std::make_unique<ParquetRows>(file, fields_of(fields));
  const bool named_rows = extension == ".jsonl" || extension == ".ndjson" || extension == ".json";
  if (!named_rows && (kind == RowKind::automatic || kind == RowKind::text)) return nullptr;
  return std::make_unique<JsonRows>(file, extension == ".json");
}

}  // namespace frugal::data
