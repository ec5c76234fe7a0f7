// Rows of a Parquet file as JSON objects, one at a time: a page of each column is in memory, never a row group. Reader of untrusted
// bytes, written against the format's own description (parquet-format: Thrift compact footer, Dremel levels).
//
// Read: structs, lists (as three levels, two levels, or a plain repeated field), text, booleans, integers and floats; PLAIN, dictionary
// and RLE encodings; pages of version 1 and 2; uncompressed, snappy, gzip and zstd. Anything else in a column that is wanted
// (maps, decimals, 96-bit times, delta encodings, other codecs, encryption) is Error{unsupported}.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"

namespace frugal::io {

class ParquetReader {
 public:
  // `bytes` must outlive it; `name` leads messages. Of the fields of a row only those of `wanted` are read. Throws
  // Error{corrupt_file}, with the offset, or Error{unsupported}.
  ParquetReader(std::span<const std::byte> bytes, std::string name, const std::vector<std::string>& wanted);
  ~ParquetReader();
  ParquetReader(const ParquetReader&) = delete;
  ParquetReader& operator=(const ParquetReader&) = delete;

  uint64_t rows() const;
  // False at the end. Texts are as the file has them, perhaps not UTF-8; a field that is null is null.
  bool next(Json& row);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace frugal::io
