#include "io/parquet.h"

#include <snappy.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <bit>
#include <optional>
#include <utility>

#include "base/error.h"
#include "io/parquet_metadata.h"

namespace frugal::io {
namespace parquet {
namespace {

using Bytes = std::span<const std::byte>;

// A few bytes can stand for any number of values, so what they become is bounded.
constexpr uint32_t kMaxDictionary = uint32_t{64} << 20;
constexpr size_t kMaxRowValues = 1'000'000, kMaxRowBytes = size_t{16} << 20;

std::vector<std::byte> inflated(Bytes packed, size_t size, const BoundedReader& at) {
  std::vector<std::byte> out(size + 1);  // the one that must stay free; zlib takes no empty buffer
  z_stream stream{};
  if (inflateInit2(&stream, 15 + 32) != Z_OK) fail(ErrorKind::out_of_memory, "{}: zlib does not start", at.name());
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(packed.data()));
  stream.avail_in = static_cast<uInt>(packed.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(size + 1);
  const int code = inflate(&stream, Z_FINISH);
  const bool whole = code == Z_STREAM_END && stream.avail_out == 1;
  inflateEnd(&stream);
  if (!whole) at.fail_here("a page that does not unpack to {} bytes (gzip)", size);
  out.resize(size);
  return out;
}

// Pages are at most 256 MiB (read_page_header), packed and unpacked.
std::vector<std::byte> unpacked(Codec codec, Bytes packed, size_t size, const BoundedReader& at) {
  if (codec == Codec::gzip) return inflated(packed, size, at);
  const char* const data = reinterpret_cast<const char*>(packed.data());
  if (codec == Codec::snappy) {
    size_t told = 0;
    if (!snappy::GetUncompressedLength(data, packed.size(), &told) || told != size) at.fail_here("a page that does not unpack to {} bytes (snappy)", size);
    std::vector<std::byte> out(size);
    if (!snappy::RawUncompress(data, packed.size(), reinterpret_cast<char*>(out.data()))) at.fail_here("a page that does not unpack (snappy)");
    return out;
  }
  std::vector<std::byte> out(size);
  const size_t got = ZSTD_decompress(out.data(), size, packed.data(), packed.size());
  if (ZSTD_isError(got) || got != size) at.fail_here("a page that does not unpack to {} bytes (zstd)", size);
  return out;
}

// Runs of one value, and groups of eight packed ones: levels, indices of a dictionary, booleans.
class Hybrid {
 public:
  Hybrid() : Hybrid(BoundedReader({}, ""), 0) {}
  Hybrid(BoundedReader in, int width) : in_(std::move(in)), width_(width) {}

  uint32_t next() {
    if (left_ == 0) start_run();
    --left_;
    if (!packed_) return value_;
    while (bits_ < width_) {
      buffer_ |= static_cast<uint64_t>(in_.read<uint8_t>("packed values")) << bits_;
      bits_ += 8;
    }
    const auto value = static_cast<uint32_t>(buffer_ & ((uint64_t{1} << width_) - 1));
    buffer_ >>= width_;
    bits_ -= width_;
    return value;
  }

 private:
  void start_run() {
    uint64_t head = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = in_.read<uint8_t>("a run of values");
      head |= static_cast<uint64_t>(byte & 127) << shift;
      if (byte < 128) break;
      if (shift >= 28) in_.fail_here("a run of values with a length of more than five bytes");
    }
    packed_ = head & 1;
    left_ = packed_ ? (head >> 1) * 8 : head >> 1;
    if (left_ == 0) in_.fail_here("a run of no values");
    buffer_ = 0;
    bits_ = 0;
    value_ = 0;
    if (packed_) return;
    for (int i = 0; i < (width_ + 7) / 8; ++i) value_ |= static_cast<uint32_t>(in_.read<uint8_t>("the value of a run")) << (8 * i);
  }

  BoundedReader in_;
  int width_;
  bool packed_ = false;
  uint64_t left_ = 0, buffer_ = 0;
  uint32_t value_ = 0;
  int bits_ = 0;
};

class PlainValues {
 public:
  PlainValues() : PlainValues(BoundedReader({}, ""), Physical::int32) {}
  PlainValues(BoundedReader in, Physical physical) : in_(std::move(in)), physical_(physical) {}

  Json next() {
    switch (physical_) {
      case Physical::boolean:
        if (bits_ == 0) byte_ = in_.read<uint8_t>("booleans");
        return (byte_ >> std::exchange(bits_, (bits_ + 1) % 8) & 1) != 0;
      case Physical::int32: return in_.read<int32_t>("an integer");
      case Physical::int64: return in_.read<int64_t>("an integer");
      case Physical::float32: return in_.read<float>("a number");
      case Physical::float64: return in_.read<double>("a number");
      default: {
        const auto size = in_.read<uint32_t>("the size of a text");
        return std::string(in_.take_text(size, "a text"));
      }
    }
  }

 private:
  BoundedReader in_;
  Physical physical_;
  int bits_ = 0;
  uint8_t byte_ = 0;
};

struct Entry {
  int32_t repetition = 0, definition = 0;
  Json value;  // when the definition is the highest one
};

// The values of one column of a row group, page by page.
class ColumnCursor {
 public:
  ColumnCursor(Bytes file, const std::string& name, const Column& column, const Chunk& chunk)
      : column_(column), codec_(chunk.codec), pages_(file.subspan(chunk.begin, chunk.size), name, chunk.begin), left_(chunk.values) {}

  // The next entry without taking it; null at the end.
  const Entry* peek() {
    if (!entry_ && left_ > 0) entry_ = read();
    return entry_ ? &*entry_ : nullptr;
  }
  Entry take() { return *std::exchange(entry_, std::nullopt); }

 private:
  Entry read() {
    while (in_page_ == 0) open_page();
    --in_page_;
    --left_;
    Entry entry;
    entry.repetition = static_cast<int32_t>(repetitions_.next());
    entry.definition = static_cast<int32_t>(definitions_.next());
    if (entry.repetition > column_.max_repetition || entry.definition > column_.max_definition)
      pages_.fail_here("a level ({}, {}) above those of its column", entry.repetition, entry.definition);
    if (entry.definition < column_.max_definition) return entry;
    if (encoding_ == Encoding::plain) {
      entry.value = plain_.next();
    } else if (encoding_ == Encoding::rle) {
      entry.value = indices_.next() != 0;
    } else {
      const uint32_t index = indices_.next();
      if (index >= dictionary_.size()) pages_.fail_here("the value {} of a dictionary of {}", index, dictionary_.size());
      entry.value = dictionary_[index];
    }
    return entry;
  }

  static int width(int32_t highest) { return std::bit_width(static_cast<uint32_t>(highest)); }

  void open_page() {
    const PageHeader header = read_page_header(pages_);
    const Bytes bytes = pages_.take(header.compressed, "a page");
    switch (header.kind) {
      case PageHeader::Kind::index: return;
      case PageHeader::Kind::dictionary: return read_dictionary(header, bytes);
      case PageHeader::Kind::data: return open_data(header, bytes);
      case PageHeader::Kind::data_v2: return open_data_v2(header, bytes);
    }
    pages_.fail_here("no kind of page {}", static_cast<int>(header.kind));
  }

  BoundedReader unpack(Bytes bytes, size_t size, bool packed, std::vector<std::byte>& into) {
    if (!packed || codec_ == Codec::none || bytes.empty()) {  // pages of nulls alone may be left empty
      if (bytes.size() != size) pages_.fail_here("a page of {} bytes that tells {}", bytes.size(), size);
      return BoundedReader(bytes, pages_.name(), pages_.position() - bytes.size());
    }
    into = unpacked(codec_, bytes, size, pages_);
    return BoundedReader(into, pages_.name() + " (unpacked page)");
  }

  void read_dictionary(const PageHeader& header, Bytes bytes) {
    if (header.encoding != Encoding::plain && header.encoding != Encoding::plain_dictionary) fail_encoding(header);
    if (header.uncompressed > kMaxDictionary || column_.physical == Physical::boolean) pages_.fail_here("a dictionary of {} bytes", header.uncompressed);
    std::vector<std::byte> buffer;
    PlainValues values(unpack(bytes, header.uncompressed, true, buffer), column_.physical);
    dictionary_.clear();
    for (uint32_t i = 0; i < header.values; ++i) dictionary_.push_back(values.next());
  }

  void open_data(const PageHeader& header, Bytes bytes) {
    if (!header.levels_are_rle) fail(ErrorKind::unsupported, "{}: offset {}: levels in the old bit-packed form", pages_.name(), pages_.position());
    BoundedReader in = unpack(bytes, header.uncompressed, true, page_);
    const auto levels = [&](int32_t highest) {
      if (highest == 0) return constant_zero();
      const auto size = in.read<uint32_t>("the size of levels");
      return Hybrid(BoundedReader(in.take(size, "levels"), pages_.name()), width(highest));
    };
    repetitions_ = levels(column_.max_repetition);
    definitions_ = levels(column_.max_definition);
    open_values(header, std::move(in), true);
  }

  void open_data_v2(const PageHeader& header, Bytes bytes) {
    const uint64_t levels = uint64_t{header.repetition_bytes} + header.definition_bytes;
    if (levels > bytes.size() || levels > header.uncompressed) pages_.fail_here("levels of {} bytes in a page of {}", levels, bytes.size());
    const auto hybrid = [&](Bytes part, int32_t highest) {
      return highest == 0 ? constant_zero() : Hybrid(BoundedReader(part, pages_.name()), width(highest));
    };
    repetitions_ = hybrid(bytes.first(header.repetition_bytes), column_.max_repetition);
    definitions_ = hybrid(bytes.subspan(header.repetition_bytes, header.definition_bytes), column_.max_definition);
    open_values(header, unpack(bytes.subspan(levels), header.uncompressed - levels, header.is_compressed, page_), false);
  }

  // Levels that are not written: none is above zero.
  static Hybrid constant_zero() {
    static constexpr std::byte kRun[] = {std::byte{0xFE}, std::byte{0xFF}, std::byte{0xFF}, std::byte{0xFF}, std::byte{0x0F}};  // a run of 2^31 - 1
    return Hybrid(BoundedReader(kRun, ""), 0);
  }

  void open_values(const PageHeader& header, BoundedReader in, bool sized) {
    in_page_ = header.values;
    if (in_page_ > left_) pages_.fail_here("a page of {} values where {} are left", in_page_, left_);
    encoding_ = header.encoding;
    if (encoding_ == Encoding::plain) {
      plain_ = PlainValues(std::move(in), column_.physical);
    } else if (encoding_ == Encoding::plain_dictionary || encoding_ == Encoding::rle_dictionary) {
      const int bits = in.at_end() ? 0 : in.read<uint8_t>("the width of indices");  // a page of nulls may have nothing
      if (bits > 32) in.fail_here("indices of {} bits", bits);
      indices_ = Hybrid(std::move(in), bits);
    } else if (encoding_ == Encoding::rle && column_.physical == Physical::boolean) {
      const auto size = in.read<uint32_t>("the size of booleans");
      indices_ = Hybrid(BoundedReader(in.take(size, "booleans"), pages_.name()), 1);
    } else {
      fail_encoding(header);
    }
  }

  [[noreturn]] void fail_encoding(const PageHeader& header) const {
    fail(ErrorKind::unsupported, "{}: offset {}: values in the encoding {}; plain values and dictionaries are read", pages_.name(), pages_.position(),
         static_cast<int>(header.encoding));
  }

  const Column& column_;
  Codec codec_;
  BoundedReader pages_;
  uint64_t left_, in_page_ = 0;
  std::vector<std::byte> page_;
  Encoding encoding_ = Encoding::plain;
  Hybrid repetitions_, definitions_, indices_;
  PlainValues plain_;
  std::vector<Json> dictionary_;
  std::optional<Entry> entry_;
};

// One entry put to its place in a row; `indices` are those of the elements that are open, by level.
void place(Json& row, const Column& column, Entry entry, std::vector<size_t>& indices, const std::string& name) {
  Json* at = &row;
  for (const Step& step : column.steps) {
    if (step.kind == Step::Kind::field) {
      if (!at->is_null() && !at->is_object()) fail(ErrorKind::corrupt_file, "{}: the field {} in what is no struct", name, printable(step.name));
      at = &(*at)[step.name];
    } else if (step.kind == Step::Kind::element) {
      if (at->is_null()) *at = Json::array();
      if (!at->is_array()) fail(ErrorKind::corrupt_file, "{}: elements of what is no list, in the field {}", name, printable(column.path[0]));
    }
    if (entry.definition < step.definition) return;
    if (step.kind != Step::Kind::element) continue;
    size_t& index = indices[static_cast<size_t>(step.repetition)];
    if (entry.repetition < step.repetition) index = 0;
    if (entry.repetition == step.repetition) ++index;
    while (at->size() <= index) at->push_back(nullptr);
    at = &(*at)[index];
  }
  *at = std::move(entry.value);
}

}  // namespace
}  // namespace parquet

struct ParquetReader::State {
  std::span<const std::byte> bytes;
  std::string name;
  parquet::FileMetadata metadata;
  std::vector<bool> wanted;
  size_t group = 0;
  uint64_t left = 0;  // rows of the open group
  uint64_t row = 0;
  std::vector<std::pair<const parquet::Column*, parquet::ColumnCursor>> cursors;

  void open_group() {
    const parquet::RowGroup& next = metadata.groups[group++];
    left = next.rows;
    cursors.clear();
    for (size_t i = 0; i < metadata.columns.size(); ++i) {
      if (!wanted[i]) continue;
      const parquet::Column& column = metadata.columns[i];
      const std::string& problem = column.unsupported.empty() ? next.chunks[i].problem : column.unsupported;
      if (!problem.empty()) fail(ErrorKind::unsupported, "{}: the column {} cannot be read: {}", name, printable(column.path[0]), problem);
      cursors.emplace_back(&column, parquet::ColumnCursor(bytes, name, column, next.chunks[i]));
    }
  }
};

ParquetReader::ParquetReader(std::span<const std::byte> bytes, std::string name, const std::vector<std::string>& wanted) : state_(new State) {
  state_->bytes = bytes;
  state_->metadata = parquet::read_metadata(bytes, name);
  state_->name = std::move(name);
  for (const parquet::Column& column : state_->metadata.columns) state_->wanted.push_back(std::ranges::find(wanted, column.path[0]) != wanted.end());
  if (state_->metadata.rows > 0 && std::ranges::find(state_->wanted, true) == state_->wanted.end()) {
    std::string names;
    for (const parquet::Column& column : state_->metadata.columns) names += fmt::format("{}{}", names.empty() ? "" : ", ", printable(column.path[0]));
    fail(ErrorKind::invalid_input, "{}: has none of the fields that are looked for; it has {}", state_->name, names.substr(0, 500));
  }
}

ParquetReader::~ParquetReader() = default;

uint64_t ParquetReader::rows() const { return state_->metadata.rows; }

bool ParquetReader::next(Json& row) {
  State& state = *state_;
  while (state.left == 0) {
    if (state.group == state.metadata.groups.size()) return false;
    state.open_group();
  }
  --state.left;
  ++state.row;
  row = Json::object();
  size_t values = 0, size = 0;
  for (auto& [column, cursor] : state.cursors) {
    std::vector<size_t> indices(static_cast<size_t>(column->max_repetition) + 1);
    bool first = true;
    for (const parquet::Entry* entry = cursor.peek(); entry && (first || entry->repetition > 0); entry = cursor.peek()) {
      if (std::exchange(first, false) && entry->repetition != 0) fail(ErrorKind::corrupt_file, "{}: a row that begins inside a list", state.name);
      if (entry->value.is_string()) size += entry->value.get_ref<const std::string&>().size();
      if (++values > parquet::kMaxRowValues || size > parquet::kMaxRowBytes)
        fail(ErrorKind::invalid_input, "{}: row {} has more than {} values or {} bytes", state.name, state.row, parquet::kMaxRowValues, parquet::kMaxRowBytes);
      parquet::place(row, *column, cursor.take(), indices, state.name);
    }
    if (first) fail(ErrorKind::corrupt_file, "{}: the column {} has fewer rows than it tells", state.name, printable(column->path[0]));
  }
  return true;
}

}  // namespace frugal::io
