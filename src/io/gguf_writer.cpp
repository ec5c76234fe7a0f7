#include "io/gguf_writer.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <utility>

#include "base/checked.h"
#include "formats/format.h"

namespace frugal::io {
namespace {

constexpr size_t kMaxName = 63;  // GGML_MAX_NAME counts the NUL

class Bytes {
 public:
  template <typename T>
  void put(T value) {
    text_.append(reinterpret_cast<const char*>(&value), sizeof(T));
  }
  void put_text(std::string_view text) {
    put<uint64_t>(text.size());
    text_ += text;
  }
  void pad_to(uint64_t alignment) { text_.resize(checked_round_up<uint64_t>(text_.size(), alignment, "padding"), '\0'); }
  std::string_view text() const { return text_; }

 private:
  std::string text_;
};

template <typename T>
constexpr bool kIsVector = false;
template <typename T>
constexpr bool kIsVector<std::vector<T>> = true;

template <typename T>
GgufType default_type_of(const std::vector<T>& values) {
  if constexpr (std::is_same_v<T, bool>) return GgufType::boolean;
  if constexpr (std::is_same_v<T, std::string>) return GgufType::text;
  if constexpr (std::is_same_v<T, double>) return GgufType::f32;
  if constexpr (std::is_same_v<T, uint64_t>) {
    return std::all_of(values.begin(), values.end(), [](uint64_t v) { return std::in_range<uint32_t>(v); }) ? GgufType::u32 : GgufType::u64;
  }
  if constexpr (std::is_same_v<T, int64_t>) {
    return std::all_of(values.begin(), values.end(), [](int64_t v) { return std::in_range<int32_t>(v); }) ? GgufType::i32 : GgufType::i64;
  }
}

GgufKeyType default_type(const MetadataValue& value) {
  return std::visit(
      [](const auto& held) -> GgufKeyType {
        using T = std::decay_t<decltype(held)>;
        if constexpr (kIsVector<T>) {
          return {true, default_type_of(held)};
        } else {
          return {false, default_type_of(std::vector<T>{held})};
        }
      },
      value);
}

// Whether the file's type holds exactly this value (any double fits f32, rounded).
template <typename T>
bool fits(const T& value, GgufType type) {
  if constexpr (std::is_same_v<T, bool>) {
    return type == GgufType::boolean;
  } else if constexpr (std::is_same_v<T, std::string>) {
    return type == GgufType::text;
  } else if constexpr (std::is_same_v<T, double>) {
    return type == GgufType::f32 || type == GgufType::f64;
  } else {
    switch (type) {
      case GgufType::u8: return std::in_range<uint8_t>(value);
      case GgufType::i8: return std::in_range<int8_t>(value);
      case GgufType::u16: return std::in_range<uint16_t>(value);
      case GgufType::i16: return std::in_range<int16_t>(value);
      case GgufType::u32: return std::in_range<uint32_t>(value);
      case GgufType::i32: return std::in_range<int32_t>(value);
      case GgufType::u64: return std::in_range<uint64_t>(value);
      case GgufType::i64: return std::in_range<int64_t>(value);
      default: return false;
    }
  }
}

template <typename T>
void put_scalar(Bytes& out, GgufType type, const T& value) {
  if constexpr (std::is_same_v<T, bool>) {
    out.put<uint8_t>(value ? 1 : 0);
  } else if constexpr (std::is_same_v<T, std::string>) {
    out.put_text(value);
  } else if constexpr (std::is_same_v<T, double>) {
    if (type == GgufType::f32) {
      out.put(static_cast<float>(value));
    } else {
      out.put(value);
    }
  } else {
    switch (type) {
      case GgufType::u8:
      case GgufType::i8: out.put(static_cast<uint8_t>(value)); break;
      case GgufType::u16:
      case GgufType::i16: out.put(static_cast<uint16_t>(value)); break;
      case GgufType::u32:
      case GgufType::i32: out.put(static_cast<uint32_t>(value)); break;
      default: out.put(static_cast<uint64_t>(value));
    }
  }
}

bool fits(const MetadataValue& value, const GgufKeyType& type) {
  return std::visit(
      [&](const auto& held) {
        using T = std::decay_t<decltype(held)>;
        if constexpr (kIsVector<T>) {
          using Item = typename T::value_type;
          return type.is_array && std::all_of(held.begin(), held.end(), [&](const Item& item) { return fits<Item>(item, type.type); });
        } else {
          return !type.is_array && fits<T>(held, type.type);
        }
      },
      value);
}

void put_value(Bytes& out, const GgufKeyType& type, const MetadataValue& value) {
  if (type.is_array) out.put(GgufType::array);
  out.put(type.type);
  std::visit(
      [&](const auto& held) {
        using T = std::decay_t<decltype(held)>;
        if constexpr (kIsVector<T>) {
          out.put<uint64_t>(held.size());
          for (const typename T::value_type& item : held) put_scalar(out, type.type, item);
        } else {
          put_scalar(out, type.type, held);
        }
      },
      value);
}

}  // namespace

GgufWriter::GgufWriter(std::string path, uint64_t alignment) : path_(std::move(path)), alignment_(alignment) {
  if (!std::has_single_bit(alignment) || alignment > kMaxGgufAlignment) {
    fail(ErrorKind::invalid_input, "{}: alignment {} must be a power of two up to {}", path_, alignment, kMaxGgufAlignment);
  }
  if (alignment != 32) set("general.alignment", alignment, GgufKeyType{false, GgufType::u32});
}

void GgufWriter::set(const std::string& key, MetadataValue value, std::optional<GgufKeyType> type) {
  const bool plain = std::all_of(key.begin(), key.end(), [](char c) { return c > 0x20 && c < 0x7f; });
  if (key.empty() || key.size() > kMaxGgufKey || !plain) fail(ErrorKind::invalid_input, "{}: \"{}\" is not a key that GGUF allows", path_, printable(key));
  const GgufKeyType chosen = type.value_or(default_type(value));
  if (!fits(value, chosen)) {
    fail(ErrorKind::invalid_input, "{}: key {}: {} does not fit the value type {} of GGUF", path_, key, printable(to_string(value)),
         static_cast<uint32_t>(chosen.type));
  }
  types_[key] = chosen;
  metadata_.set(key, std::move(value));
}

void GgufWriter::set_all(const Metadata& metadata, const GgufKeyTypes& types) {
  for (const auto& [key, value] : metadata.values()) {
    if (key == "general.alignment" || key.starts_with("split.")) continue;
    const auto type = types.find(key);
    set(key, value, type == types.end() ? std::optional<GgufKeyType>{} : type->second);
  }
}

void GgufWriter::add(TensorToWrite tensor) {
  if (tensor.name.empty() || tensor.name.size() > kMaxName) {
    fail(ErrorKind::unsupported, "{}: tensor name \"{}\" has {} bytes, GGUF readers take 1..{}", path_, printable(tensor.name), tensor.name.size(), kMaxName);
  }
  if (tensor.shape.size() > 4) fail(ErrorKind::unsupported, "{}: tensor {} has {} dimensions, GGUF allows 4", path_, tensor.name, tensor.shape.size());
  if (formats::format_at(tensor.format).gguf_type < 0)
    fail(ErrorKind::unsupported, "{}: tensor {}: GGUF has no type for {}", path_, tensor.name, tensor.format);
  if (size_of(tensor) == 0) fail(ErrorKind::unsupported, "{}: tensor {} is empty, which GGUF does not allow", path_, tensor.name);
  for (const TensorToWrite& other : tensors_) {
    if (other.name == tensor.name) fail(ErrorKind::internal, "{}: tensor {} is given twice", path_, tensor.name);
  }
  tensors_.push_back(std::move(tensor));
}

void GgufWriter::write() const {
  Bytes head;
  for (const char c : {'G', 'G', 'U', 'F'}) head.put(c);
  head.put<uint32_t>(3);
  head.put<uint64_t>(tensors_.size());
  head.put<uint64_t>(metadata_.values().size());
  // general.* first, as every other writer does: `file` and people look there.
  for (const bool general : {true, false}) {
    for (const auto& [key, value] : metadata_.values()) {
      if (key.starts_with("general.") != general) continue;
      head.put_text(key);
      put_value(head, types_.at(key), value);
    }
  }
  uint64_t offset = 0;
  for (const TensorToWrite& tensor : tensors_) {
    head.put_text(tensor.name);
    head.put(static_cast<uint32_t>(tensor.shape.size()));
    for (size_t i = tensor.shape.size(); i-- > 0;) head.put(static_cast<uint64_t>(tensor.shape[i]));
    head.put(static_cast<uint32_t>(formats::format_at(tensor.format).gguf_type));
    head.put(offset);
    offset = checked_round_up(checked_add(offset, size_of(tensor), tensor.name), alignment_, tensor.name);
  }
  head.pad_to(alignment_);
  AtomicFile file(path_);
  file.write(head.text());
  std::vector<std::byte> scratch;
  const std::vector<std::byte> zeros(alignment_);
  for (const TensorToWrite& tensor : tensors_) {
    emit(tensor, scratch, [&](std::span<const std::byte> bytes) { file.write(bytes); });
    const uint64_t padded = checked_round_up(file.size(), alignment_, tensor.name);
    file.write(std::span(zeros).first(padded - file.size()));
  }
  file.commit();
}

}  // namespace frugal::io
