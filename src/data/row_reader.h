// The rows of a file of JSON lines, of one JSON list, or of Parquet, in order, some at a time. The file is mapped; what was read is given back
// to the system, and a line of a gigabyte costs no memory: it is passed over.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "data/row.h"
#include "io/parquet.h"

namespace frugal::data {

inline constexpr size_t kLongestRow = size_t{16} << 20;

struct RawRow {
  std::string_view text;      // one JSON value
  std::optional<Json> value;  // or what it says
  uint64_t line = 0;          // where it begins, from 1; of a Parquet file the row
  std::string problem;        // why it is none: too long, or the list ends too early
};

// A file of data that is read once. Throws Error{io} when it is no regular file or cannot be read, Error{unsupported} when it is
// compressed.
class DataFile {
 public:
  explicit DataFile(const std::string& path);
  std::string_view text() const;  // without a byte order mark
  std::span<const std::byte> bytes() const { return file_->bytes(); }
  size_t size() const { return file_->bytes().size(); }
  const std::string& path() const { return file_->path(); }
  // Throws Error{io} when the file was changed since it was opened.
  void require_unchanged() const;

 private:
  std::shared_ptr<MappedFile> file_;
  std::filesystem::file_time_type written_;
};

class RowReader {
 public:
  virtual ~RowReader() = default;
  // The next rows, empty at the end. They are valid until the next call.
  virtual std::vector<RawRow> next() = 0;
  virtual size_t position() const = 0;  // how much of the file is done, in bytes
};

class JsonRows : public RowReader {
 public:
  // `list`: the file may be one JSON list of rows; it is when it begins with '['.
  JsonRows(const DataFile& file, bool list);
  std::vector<RawRow> next() override;
  size_t position() const override { return at_; }

 private:
  bool next_line(RawRow& row);
  bool next_element(RawRow& row);
  size_t element_end();
  void give_back(size_t end);
  void skip_space();

  std::string_view text_;
  size_t at_ = 0;
  size_t released_ = 0;
  uint64_t line_ = 1;
  bool list_ = false;
  bool first_ = true;  // no element of the list was read yet
};

class ParquetRows : public RowReader {
 public:
  ParquetRows(const DataFile& file, const std::vector<std::string>& fields);
  std::vector<RawRow> next() override;
  size_t position() const override;

 private:
  io::ParquetReader reader_;
  size_t file_size_;
  uint64_t row_ = 0;
};

// The rows of a file, by its first bytes and its name: Parquet, .json, or lines of JSON (.jsonl, .ndjson, and any other name when `kind` is one of
// rows). Null: it is a text. The file must outlive the reader.
std::unique_ptr<RowReader> open_rows(const DataFile& file, RowKind kind, const FieldNames& fields);

}  // namespace frugal::data
