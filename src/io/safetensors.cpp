#include "io/safetensors.h"

#include <algorithm>
#include <array>
#include <unordered_set>
#include <utility>

#include "base/bounded_reader.h"
#include "base/checked.h"
#include "base/json.h"
#include "formats/format.h"

namespace frugal::io {
namespace {

constexpr size_t kMaxDimensions = 64;

// A name is never a path, but names end in logs, file names of other tools and the terminal.
bool is_plain_name(std::string_view name) {
  if (name.empty() || name.size() > kMaxTensorName || name.front() == '/') return false;
  for (const char c : name) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) return false;
  }
  // U+200E, U+200F, U+202A..U+202E, U+2066..U+2069: marks that reorder the text around them.
  for (size_t at = name.find('\xe2'); at != name.npos && at + 2 < name.size(); at = name.find('\xe2', at + 1)) {
    const auto second = static_cast<unsigned char>(name[at + 1]), third = static_cast<unsigned char>(name[at + 2]);
    if (second == 0x80 && (third == 0x8e || third == 0x8f || (third >= 0xaa && third <= 0xae))) return false;
    if (second == 0x81 && third >= 0xa6 && third <= 0xa9) return false;
  }
  for (size_t begin = 0; begin <= name.size();) {
    const size_t end = std::min(name.find('/', begin), name.size());
    if (name.substr(begin, end - begin) == "..") return false;
    begin = end + 1;
  }
  return true;
}

struct Entry {
  std::string name;
  const formats::Format* format = nullptr;
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;
};

// Builds the entries straight from the parser's events: a tree of JSON values for a million tensors would take ten times
// the header. `position` is unknown to SAX events, so messages name the JSON path instead.
class HeaderBuilder : public nlohmann::json_sax<Json> {
 public:
  HeaderBuilder(const std::string& file, SafetensorsMetadata& metadata) : file_(file), metadata_(metadata) {}

  bool null() override { wrong("null"); }
  bool boolean(bool) override { wrong("a boolean"); }
  bool number_integer(number_integer_t value) override { wrong(fmt::format("{}", value)); }  // negative: unsigned has its own event
  bool number_float(number_float_t, const string_t& text) override { wrong(printable(text)); }
  bool binary(binary_t&) override { wrong("binary"); }
  bool number_unsigned(number_unsigned_t value) override {
    if (place_ == Place::shape) {
      if (entry_.shape.size() >= kMaxDimensions) refuse(fmt::format("more than {} dimensions", kMaxDimensions));
      if (!std::in_range<int64_t>(value)) refuse(fmt::format("dimension {} is too large", value));
      entry_.shape.push_back(static_cast<int64_t>(value));
    } else if (place_ == Place::offsets) {
      if (offset_count_ >= 2) refuse("data_offsets has more than 2 items");
      offsets_[offset_count_++] = value;
    } else {
      wrong(fmt::format("{}", value));
    }
    return true;
  }
  bool string(string_t& value) override {
    if (place_ == Place::metadata) {
      metadata_.emplace(key_, std::move(value));
    } else if (place_ == Place::entry && key_ == "dtype") {
      entry_.format = formats::format_of_safetensors(value);
      if (!entry_.format) fail(ErrorKind::unsupported, "{}: {}: dtype \"{}\" is not supported", file_, path(), printable(value));
    } else {
      wrong(fmt::format("\"{}\"", printable(value)));
    }
    return true;
  }
  bool key(string_t& value) override {
    if (place_ == Place::top) {
      if (!names_.insert(value).second) fail(ErrorKind::corrupt_file, "{}: header: \"{}\" is there twice", file_, printable(value));
      entry_ = {};
      entry_.name = value;
    } else if (place_ == Place::entry) {
      const std::array<std::string_view, 3> known = {"dtype", "shape", "data_offsets"};
      const auto at = std::find(known.begin(), known.end(), value);
      if (at == known.end()) refuse(fmt::format("unknown field \"{}\"", printable(value)));
      const unsigned bit = 1u << (at - known.begin());
      if (fields_ & bit) refuse(fmt::format("field \"{}\" is there twice", value));
      fields_ |= bit;
    } else if (place_ == Place::metadata && metadata_.contains(value)) {
      refuse(fmt::format("key \"{}\" is there twice", printable(value)));
    }
    key_ = std::move(value);
    return true;
  }
  bool start_object(std::size_t) override {
    if (place_ == Place::none) {
      place_ = Place::top;
    } else if (place_ == Place::top && entry_.name == "__metadata__") {
      place_ = Place::metadata;
    } else if (place_ == Place::top) {
      if (!is_plain_name(entry_.name)) {
        refuse(fmt::format("a tensor name must be 1..{} bytes without control or direction marks, \"..\" or leading \"/\"", kMaxTensorName));
      }
      fields_ = 0;
      offset_count_ = 0;
      place_ = Place::entry;
    } else {
      wrong("an object");
    }
    return true;
  }
  bool end_object() override {
    if (place_ == Place::entry) {
      if (fields_ != 7) refuse("must have dtype, shape and data_offsets");
      if (offset_count_ != 2) refuse("data_offsets must have 2 items");
      entry_.begin = offsets_[0];
      entry_.end = offsets_[1];
      entries_.push_back(std::move(entry_));
      entry_ = {};
    }
    place_ = place_ == Place::top ? Place::none : Place::top;
    return true;
  }
  bool start_array(std::size_t) override {
    if (place_ != Place::entry || key_ == "dtype") wrong("an array");
    place_ = key_ == "shape" ? Place::shape : Place::offsets;
    return true;
  }
  bool end_array() override {
    place_ = Place::entry;
    return true;
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception& error) override {
    fail(ErrorKind::corrupt_file, "{}: offset {}: header is not valid JSON: {}", file_, position + 7, printable(error.what(), 200));
  }

  std::vector<Entry> take() { return std::move(entries_); }

 private:
  enum class Place { none, top, entry, shape, offsets, metadata };

  std::string path() const {
    if (place_ == Place::none) return "header";
    if (place_ == Place::top) return fmt::format("header[\"{}\"]", printable(entry_.name));
    if (place_ == Place::metadata) return fmt::format("header.__metadata__[\"{}\"]", printable(key_));
    return fmt::format("header[\"{}\"].{}", printable(entry_.name), printable(key_));
  }
  [[noreturn]] void refuse(const std::string& rule) { fail(ErrorKind::corrupt_file, "{}: {}: {}", file_, path(), rule); }
  [[noreturn]] void wrong(const std::string& received) {
    std::string_view rule = "must be an object";
    if (place_ == Place::metadata) rule = "must be a string";
    if (place_ == Place::shape || place_ == Place::offsets) rule = "must hold integers of at least 0";
    if (place_ == Place::entry) rule = key_ == "dtype" ? "must be a string" : "must be an array";
    refuse(fmt::format("{}, is {}", rule, received));
  }

  const std::string& file_;
  SafetensorsMetadata& metadata_;
  std::vector<Entry> entries_;
  std::unordered_set<std::string> names_;
  Place place_ = Place::none;
  std::string key_;
  Entry entry_;
  unsigned fields_ = 0;
  std::array<uint64_t, 2> offsets_{};
  size_t offset_count_ = 0;
};

std::string_view take_header(BoundedReader& in) {
  const auto size = in.read<uint64_t>("header length");
  if (size > kMaxSafetensorsHeader) in.fail_here("header of {} bytes, at most {} are allowed", size, kMaxSafetensorsHeader);
  if (size < 2) in.fail_here("header of {} bytes, an empty one has 2", size);
  const std::string_view header = in.take_text(size, "header");
  if (header.front() != '{') {
    fail(ErrorKind::corrupt_file, "{}: offset 8: the header starts with \"{}\" instead of a brace: not a safetensors file", in.name(), printable(header, 8));
  }
  if (const size_t nul = header.find('\0'); nul != header.npos) {
    fail(ErrorKind::corrupt_file, "{}: offset {}: NUL byte in the header", in.name(), nul + 8);
  }
  return header;
}

// size_of with a message that says where; the text is made on failure only, a file may have a million tensors.
template <typename Where>
uint64_t checked_size(const Entry& entry, const Where& where) {
  try {
    return size_of("its shape", *entry.format, entry.shape);
  } catch (const Error& error) {
    fail(error.kind(), "{}: {}", where(entry), error.what());
  }
}

}  // namespace

SafetensorsFile read_safetensors(std::span<const std::byte> bytes, const std::string& name) {
  BoundedReader in(bytes, name);
  SafetensorsFile file;
  std::vector<Entry> entries;
  {
    HeaderBuilder builder(name, file.metadata);
    if (const std::string_view header = take_header(in); !Json::sax_parse(header, &builder)) in.fail_here("header is not valid JSON");
    entries = builder.take();
  }
  const uint64_t data_begin = in.position(), data_size = in.remaining();
  const auto where = [&](const Entry& entry) {
    return fmt::format("{}: offset {}: tensor {}", name, data_begin + std::min(entry.begin, data_size), printable(entry.name));
  };
  std::stable_sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.begin != b.begin ? a.begin < b.begin : a.end < b.end; });
  uint64_t expected = 0;
  file.tensors.reserve(entries.size());
  for (Entry& entry : entries) {
    if (entry.begin > entry.end) fail(ErrorKind::corrupt_file, "{}: begins at {} but ends at {}", where(entry), entry.begin, entry.end);
    if (entry.begin != expected) {
      fail(ErrorKind::corrupt_file, "{}: begins at {} of the data, must be {}: {}", where(entry), entry.begin, expected,
           entry.begin < expected ? "it overlaps the tensor before it" : "a hole");
    }
    if (entry.end > data_size) {
      fail(ErrorKind::corrupt_file, "{}: ends at {} of the data, which has {} bytes. Perhaps an incomplete download?", where(entry), entry.end, data_size);
    }
    const uint64_t size = checked_size(entry, where);
    if (entry.end - entry.begin != size) {
      fail(ErrorKind::corrupt_file, "{}: has {} bytes, its shape and dtype {} ask for {}", where(entry), entry.end - entry.begin, entry.format->id, size);
    }
    expected = entry.end;
    file.tensors.push_back({std::move(entry.name), std::string(entry.format->id), std::move(entry.shape), bytes.subspan(data_begin + entry.begin, size)});
  }
  if (expected != data_size) {
    fail(ErrorKind::corrupt_file, "{}: offset {}: {} bytes after the last tensor", name, data_begin + expected, data_size - expected);
  }
  return file;
}

}  // namespace frugal::io
