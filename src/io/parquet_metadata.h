// What the footer of a Parquet file says, checked; for parquet.cpp and parquet_column.cpp.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/bounded_reader.h"

namespace frugal::io::parquet {

enum class Physical : int32_t { boolean, int32, int64, int96, float32, float64, byte_array, fixed_byte_array };
enum class Codec : int32_t { none = 0, snappy = 1, gzip = 2, zstd = 6 };
enum class Encoding : int32_t { plain = 0, plain_dictionary = 2, rle = 3, rle_dictionary = 8 };

// One step from a row to a value of a column.
struct Step {
  enum class Kind { field, element, value } kind;
  std::string name;    // of a field
  int32_t definition;  // the level from which on it is there: a field that is not null, an element, a value that is not null
  int32_t repetition;  // of an element: a value of this level begins the next one
};

struct Column {
  std::vector<Step> steps;
  std::vector<std::string> path;
  Physical physical = Physical::byte_array;
  std::string unsupported;  // why it cannot be read, or empty
  int32_t max_definition = 0, max_repetition = 0;
};

// A column of a row group.
struct Chunk {
  Codec codec = Codec::none;
  uint64_t values = 0, begin = 0, size = 0;  // pages lie in the bytes [begin, begin + size) of the file
  bool wanted = false;
  std::string problem;  // why it cannot be read, or empty
};

struct RowGroup {
  uint64_t rows = 0;
  std::vector<Chunk> chunks;  // as the columns
};

struct FileMetadata {
  std::vector<Column> columns;
  std::vector<RowGroup> groups;
  uint64_t rows = 0;
};
FileMetadata read_metadata(std::span<const std::byte> bytes, const std::string& name);

struct PageHeader {
  enum class Kind : int32_t { data = 0, index = 1, dictionary = 2, data_v2 = 3 } kind = Kind::data;
  uint32_t uncompressed = 0, compressed = 0;
  uint32_t values = 0;
  Encoding encoding = Encoding::plain;
  uint32_t definition_bytes = 0, repetition_bytes = 0;  // data_v2
  bool is_compressed = true;                            // data_v2
  bool levels_are_rle = true;
};
PageHeader read_page_header(BoundedReader& in);

}  // namespace frugal::io::parquet
