// JSON behind nlohmann's ordered value, read strictly: UTF-8 only, no duplicate keys, bounded depth, no comments, no
// NaN or Infinity, nothing after the value. Errors are Error{corrupt_file} with name and byte offset.
// Files that only need forward declarations include <nlohmann/json_fwd.hpp>.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

// nlohmann's destructor takes memory for the values of the array or object that it destroys, and must not throw: with none left, the
// process would end. Lists of values that the system has no memory for are in a small reserve (json.cpp).
template <>
struct std::allocator<nlohmann::ordered_json> {
  using value_type = nlohmann::ordered_json;
  using size_type = std::size_t;
  using difference_type = std::ptrdiff_t;
  using propagate_on_container_move_assignment = std::true_type;
  using is_always_equal = std::true_type;

  constexpr allocator() noexcept = default;
  template <typename Other>
  constexpr allocator(const std::allocator<Other>&) noexcept {}
  value_type* allocate(std::size_t count);
  void deallocate(value_type* values, std::size_t) noexcept;
  friend constexpr bool operator==(const allocator&, const allocator&) noexcept { return true; }
};

namespace frugal {

using Json = nlohmann::ordered_json;

struct JsonLimits {
  size_t max_bytes = size_t{256} << 20;
  int max_depth = 64;
};

// `name` is the file or field that the text came from; it leads every error message.
Json parse_json(std::string_view text, std::string_view name, const JsonLimits& limits = {});

// Typed access to one object: every getter checks presence, type and range and names the JSON path.
class JsonObject {
 public:
  JsonObject(const Json& value, std::string path);

  bool has(std::string_view key) const;  // present and not null
  int64_t integer(std::string_view key, int64_t min, int64_t max) const;
  int64_t integer_or(std::string_view key, int64_t fallback, int64_t min, int64_t max) const;
  double number(std::string_view key, double min, double max) const;
  double number_or(std::string_view key, double fallback, double min, double max) const;
  bool boolean_or(std::string_view key, bool fallback) const;
  std::string text(std::string_view key) const;
  std::string text_or(std::string_view key, std::string_view fallback) const;
  std::vector<double> numbers(std::string_view key) const;
  std::vector<std::string> texts(std::string_view key) const;
  JsonObject object(std::string_view key) const;
  const Json* find(std::string_view key) const;  // nullptr when absent or null
  const Json& json() const { return *value_; }
  const std::string& path() const { return path_; }
  [[noreturn]] void fail_at(std::string_view key, std::string_view rule) const;

 private:
  const Json* value_;
  std::string path_;
};

}  // namespace frugal
