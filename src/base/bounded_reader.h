// A cursor over bytes that never leaves them. Every binary reader (GGUF, safetensors header, protobuf) uses it.
// Not thread-safe; does not own the bytes. Errors carry file name and byte offset.
#pragma once

#include <bit>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "base/error.h"

namespace frugal {

static_assert(std::endian::native == std::endian::little, "frugal reads little-endian files in place");

class BoundedReader {
 public:
  BoundedReader(std::span<const std::byte> bytes, std::string name, uint64_t offset_in_file = 0)
      : bytes_(bytes), name_(std::move(name)), base_(offset_in_file) {}

  uint64_t position() const { return base_ + position_; }
  uint64_t remaining() const { return bytes_.size() - position_; }
  bool at_end() const { return remaining() == 0; }
  const std::string& name() const { return name_; }

  template <typename T>
  T read(std::string_view what) {
    static_assert(std::is_trivially_copyable_v<T>);
    T value;
    std::memcpy(&value, take(sizeof(T), what).data(), sizeof(T));
    return value;
  }

  std::span<const std::byte> take(uint64_t count, std::string_view what) {
    if (count > remaining()) {
      fail(ErrorKind::corrupt_file, "{}: offset {}: {} needs {} bytes but only {} are left. Perhaps the file is cut short?", name_, position(), what, count,
           remaining());
    }
    const auto result = bytes_.subspan(position_, count);
    position_ += count;
    return result;
  }

  std::string_view take_text(uint64_t count, std::string_view what) {
    const auto bytes = take(count, what);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  template <typename... Args>
  [[noreturn]] void fail_here(fmt::format_string<Args...> format, Args&&... args) const {
    fail(ErrorKind::corrupt_file, "{}: offset {}: {}", name_, position(), fmt::format(format, std::forward<Args>(args)...));
  }

 private:
  std::span<const std::byte> bytes_;
  std::string name_;
  uint64_t base_;
  uint64_t position_ = 0;
};

}  // namespace frugal
