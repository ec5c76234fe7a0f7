#include "io/gguf.h"

#include <set>
#include <utility>

#include "base/bounded_reader.h"
#include "base/checked.h"
#include "formats/format.h"

namespace frugal::io {
namespace {

// Smallest records that the format allows; they bound the counts by what is left of the file.
constexpr uint64_t kMinKeyBytes = 8 + 1 + 4 + 1;
constexpr uint64_t kMinTensorBytes = 8 + 1 + 4 + 4 + 8;
constexpr uint32_t kMaxDimensions = 4;

std::string_view name_of(GgufType type) {
  constexpr std::string_view kNames[] = {"u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64"};
  return kNames[static_cast<uint32_t>(type)];
}

GgufType read_type(BoundedReader& in, std::string_view key) {
  const auto type = in.read<uint32_t>("value type");
  if (type > static_cast<uint32_t>(GgufType::f64)) in.fail_here("key {}: value type {}, the format has 0..12", printable(key), type);
  return static_cast<GgufType>(type);
}

std::string_view read_text(BoundedReader& in, std::string_view what) {
  const auto size = in.read<uint64_t>(what);
  return in.take_text(size, what);
}

bool read_boolean(BoundedReader& in, std::string_view key) {
  const auto value = in.read<uint8_t>("bool");
  if (value > 1) in.fail_here("key {}: bool is {}, must be 0 or 1", printable(key), value);
  return value == 1;
}

template <typename T, typename Held>
MetadataValue read_numbers(BoundedReader& in, uint64_t count) {
  const auto bytes = in.take(checked_mul<uint64_t>(count, sizeof(T), "array size"), "array");
  std::vector<Held> values(count);
  for (uint64_t i = 0; i < count; ++i) {
    T value;
    std::memcpy(&value, bytes.data() + i * sizeof(T), sizeof(T));
    values[i] = static_cast<Held>(value);
  }
  return values;
}

MetadataValue read_array(BoundedReader& in, GgufType type, std::string_view key) {
  const auto count = in.read<uint64_t>("array length");
  // Every element has at least one byte, so no count beyond this can be true.
  if (count > in.remaining()) in.fail_here("key {}: array of {} items, but only {} bytes are left", printable(key), count, in.remaining());
  switch (type) {
    case GgufType::u8: return read_numbers<uint8_t, uint64_t>(in, count);
    case GgufType::i8: return read_numbers<int8_t, int64_t>(in, count);
    case GgufType::u16: return read_numbers<uint16_t, uint64_t>(in, count);
    case GgufType::i16: return read_numbers<int16_t, int64_t>(in, count);
    case GgufType::u32: return read_numbers<uint32_t, uint64_t>(in, count);
    case GgufType::i32: return read_numbers<int32_t, int64_t>(in, count);
    case GgufType::u64: return read_numbers<uint64_t, uint64_t>(in, count);
    case GgufType::i64: return read_numbers<int64_t, int64_t>(in, count);
    case GgufType::f32: return read_numbers<float, double>(in, count);
    case GgufType::f64: return read_numbers<double, double>(in, count);
    case GgufType::boolean: {
      std::vector<bool> values;
      for (uint64_t i = 0; i < count; ++i) values.push_back(read_boolean(in, key));
      return values;
    }
    case GgufType::text: {
      if (count > in.remaining() / 8) in.fail_here("key {}: array of {} strings does not fit in {} bytes", printable(key), count, in.remaining());
      std::vector<std::string> values;
      values.reserve(count);
      for (uint64_t i = 0; i < count; ++i) values.emplace_back(read_text(in, "string of an array"));
      return values;
    }
    case GgufType::array: break;
  }
  fail(ErrorKind::unsupported, "{}: offset {}: key {}: an array of arrays is not supported", in.name(), in.position(), printable(key));
}

MetadataValue read_scalar(BoundedReader& in, GgufType type, std::string_view key) {
  switch (type) {
    case GgufType::u8: return uint64_t{in.read<uint8_t>("u8")};
    case GgufType::i8: return int64_t{in.read<int8_t>("i8")};
    case GgufType::u16: return uint64_t{in.read<uint16_t>("u16")};
    case GgufType::i16: return int64_t{in.read<int16_t>("i16")};
    case GgufType::u32: return uint64_t{in.read<uint32_t>("u32")};
    case GgufType::i32: return int64_t{in.read<int32_t>("i32")};
    case GgufType::u64: return uint64_t{in.read<uint64_t>("u64")};
    case GgufType::i64: return int64_t{in.read<int64_t>("i64")};
    case GgufType::f32: return double{in.read<float>("f32")};
    case GgufType::f64: return double{in.read<double>("f64")};
    case GgufType::boolean: return read_boolean(in, key);
    case GgufType::text: return std::string(read_text(in, "string"));
    case GgufType::array: break;
  }
  FRUGAL_ASSERT(false);
}

std::string read_key(BoundedReader& in) {
  const auto size = in.read<uint64_t>("key length");
  if (size == 0 || size > kMaxGgufKey) in.fail_here("key of {} bytes, must be 1..{}", size, kMaxGgufKey);
  const std::string_view key = in.take_text(size, "key");
  for (const char c : key) {
    if (c <= 0x20 || c >= 0x7f) in.fail_here("key \"{}\" is not plain ASCII", printable(key));
  }
  return std::string(key);
}

void read_key_values(BoundedReader& in, uint64_t count, GgufFile& file) {
  for (uint64_t i = 0; i < count; ++i) {
    std::string key = read_key(in);
    if (file.metadata.has(key)) in.fail_here("key {} is there twice", printable(key));
    GgufKeyType type{false, read_type(in, key)};
    MetadataValue value;
    if (type.type == GgufType::array) {
      type = {true, read_type(in, key)};
      value = read_array(in, type.type, key);
    } else {
      value = read_scalar(in, type.type, key);
    }
    file.types.emplace(key, type);
    file.metadata.set(std::move(key), std::move(value));
  }
}

uint64_t read_alignment(const GgufFile& file) {
  constexpr std::string_view kKey = "general.alignment";
  const auto type = file.types.find(kKey);
  if (type == file.types.end()) return 32;
  if (type->second != GgufKeyType{false, GgufType::u32}) {
    file.metadata.fail_at(kKey, fmt::format("must be a u32 (its type is {}{})", type->second.is_array ? "array of " : "", name_of(type->second.type)));
  }
  const auto alignment = static_cast<uint64_t>(file.metadata.integer(kKey, 1, kMaxGgufAlignment));
  if ((alignment & (alignment - 1)) != 0) file.metadata.fail_at(kKey, "must be a power of two");
  return alignment;
}

struct TensorInfo {
  TensorView view;
  uint64_t offset = 0;
  uint64_t size = 0;
};

TensorInfo read_tensor_info(BoundedReader& in) {
  TensorInfo info;
  const auto name_size = in.read<uint64_t>("length of a tensor name");
  if (name_size == 0 || name_size > kMaxGgufTensorName) in.fail_here("tensor name of {} bytes, must be 1..{}", name_size, kMaxGgufTensorName);
  info.view.name = std::string(in.take_text(name_size, "tensor name"));
  const std::string shown = printable(info.view.name);
  const auto dimensions = in.read<uint32_t>("number of dimensions");
  if (dimensions > kMaxDimensions) in.fail_here("tensor {}: {} dimensions, at most {} are allowed", shown, dimensions, kMaxDimensions);
  info.view.shape.resize(dimensions);
  uint64_t count = 1;
  for (uint32_t i = 0; i < dimensions; ++i) {
    const auto dim = in.read<uint64_t>("dimension");
    if (dim == 0 || !std::in_range<int64_t>(dim)) in.fail_here("tensor {}: dimension {} is {}, must be in 1..2^63-1", shown, i, dim);
    count = checked_mul(count, dim, fmt::format("{}: offset {}: tensor {}: number of weights", in.name(), in.position(), shown));
    info.view.shape[dimensions - 1 - i] = static_cast<int64_t>(dim);  // the file's first dimension is the fastest
  }
  if (!std::in_range<int64_t>(count)) in.fail_here("tensor {}: {} weights", shown, count);
  const auto type = in.read<uint32_t>("tensor type");
  const formats::Format* format = formats::format_of_gguf_type(type);
  if (!format) {
    fail(ErrorKind::unsupported, "{}: offset {}: tensor {} has type {}, which is unknown or was removed from GGUF", in.name(), in.position(), shown, type);
  }
  info.view.format = format->id;
  const uint64_t row = dimensions == 0 ? 1 : static_cast<uint64_t>(info.view.shape.back());
  const auto block = static_cast<uint64_t>(format->block_weights);
  if (row % block != 0) in.fail_here("tensor {}: row of {} weights is not a multiple of the {} in a {} block", shown, row, block, format->id);
  info.size =
      checked_mul(count / block, static_cast<uint64_t>(format->block_bytes), fmt::format("{}: offset {}: tensor {}: bytes", in.name(), in.position(), shown));
  info.offset = in.read<uint64_t>("tensor offset");
  return info;
}

#ifdef FRUGAL_PLANTED_BUG
// Built only to prove that the fuzzer finds a bug of this kind: the check of the extent is left out.
constexpr bool kCheckExtents = false;
#else
constexpr bool kCheckExtents = true;
#endif

// llama.cpp demands that tensors follow each other with nothing but padding between; so every extent is known before it
// is compared, and an overlap or a hole cannot hide.
void place_tensors(std::vector<TensorInfo>& infos, std::span<const std::byte> bytes, uint64_t data_begin, GgufFile& file) {
  uint64_t expected = 0;
  for (TensorInfo& info : infos) {
    const auto where = [&] { return fmt::format("{}: tensor {}", file.metadata.source(), printable(info.view.name)); };
    if (kCheckExtents && info.offset != expected) {
      fail(ErrorKind::corrupt_file, "{}: data offset {}, must be {} (end of the tensor before it, aligned to {})", where(), info.offset, expected,
           file.alignment);
    }
    const uint64_t begin = checked_add(data_begin, info.offset, where());
    const uint64_t end = checked_add(begin, info.size, where());
    if (kCheckExtents && end > bytes.size()) {
      fail(ErrorKind::corrupt_file, "{}: offset {}: {} bytes of data end past the file's {} bytes. Perhaps an incomplete download?", where(), begin, info.size,
           bytes.size());
    }
    info.view.bytes = std::span(bytes.data() + begin, info.size);
    expected = checked_round_up(checked_add(info.offset, info.size, where()), file.alignment, where());
    file.tensors.push_back(std::move(info.view));
  }
}

uint32_t read_version(BoundedReader& in) {
  const std::string_view magic = in.take_text(4, "magic");
  if (magic == "FUGG") fail(ErrorKind::unsupported, "{}: byte-swapped magic: a big-endian GGUF file is not supported", in.name());
  if (magic != "GGUF") in.fail_here("not a GGUF file: it starts with \"{}\" instead of \"GGUF\"", printable(magic));
  const auto version = in.read<uint32_t>("version");
  if (version == 0) in.fail_here("version 0");
  if ((version & 0xffff) == 0) fail(ErrorKind::unsupported, "{}: version 0x{:08x} looks byte-swapped: big-endian GGUF is not supported", in.name(), version);
  if (version < 2 || version > 3) fail(ErrorKind::unsupported, "{}: GGUF version {}, only 2 and 3 are supported", in.name(), version);
  return version;
}

}  // namespace

GgufFile read_gguf(std::span<const std::byte> bytes, const std::string& name) {
  BoundedReader in(bytes, name);
  GgufFile file;
  file.metadata = Metadata(name);
  file.version = read_version(in);
  const auto tensor_count = in.read<uint64_t>("number of tensors");
  const auto key_count = in.read<uint64_t>("number of keys");
  if (key_count > in.remaining() / kMinKeyBytes) in.fail_here("{} keys cannot fit in {} bytes", key_count, in.remaining());
  if (tensor_count > in.remaining() / kMinTensorBytes) in.fail_here("{} tensors cannot fit in {} bytes", tensor_count, in.remaining());
  read_key_values(in, key_count, file);
  file.alignment = read_alignment(file);
  std::vector<TensorInfo> infos;
  std::set<std::string, std::less<>> names;
  for (uint64_t i = 0; i < tensor_count; ++i) {
    infos.push_back(read_tensor_info(in));
    if (!names.insert(infos.back().view.name).second) in.fail_here("tensor {} is there twice", printable(infos.back().view.name));
  }
  const uint64_t data_begin = checked_round_up(in.position(), file.alignment, name + ": start of the data");
  place_tensors(infos, bytes, data_begin, file);
  return file;
}

}  // namespace frugal::io
