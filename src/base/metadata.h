// What a model file says about itself besides its weights: a flat, ordered map from key to plain value, as GGUF stores
// it. Readers of other containers translate into it, so tokenizers, templates and models are built from one type,
// whoever read the file. TensorView is a named, typed, shaped window on mapped bytes.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace frugal {

using MetadataValue = std::variant<bool, int64_t, uint64_t, double, std::string, std::vector<bool>, std::vector<int64_t>, std::vector<uint64_t>,
                                   std::vector<double>, std::vector<std::string>>;

class Metadata {
 public:
  explicit Metadata(std::string source = {}) : source_(std::move(source)) {}

  void set(std::string key, MetadataValue value) { values_[std::move(key)] = std::move(value); }
  void erase(const std::string& key) { values_.erase(key); }
  bool has(std::string_view key) const { return find(key) != nullptr; }
  const MetadataValue* find(std::string_view key) const;

  // Throw Error{corrupt_file} when absent, of another type, or out of range (integers of either sign are accepted for
  // each other when they fit; a scalar is not an array).
  int64_t integer(std::string_view key, int64_t min, int64_t max) const;
  int64_t integer_or(std::string_view key, int64_t fallback, int64_t min, int64_t max) const;
  double number(std::string_view key) const;
  double number_or(std::string_view key, double fallback) const;
  bool boolean_or(std::string_view key, bool fallback) const;
  const std::string& text(std::string_view key) const;
  std::string text_or(std::string_view key, std::string_view fallback) const;
  const std::vector<std::string>& texts(std::string_view key) const;
  std::vector<int64_t> integers(std::string_view key) const;
  std::vector<double> numbers(std::string_view key) const;

  const std::map<std::string, MetadataValue, std::less<>>& values() const { return values_; }
  const std::string& source() const { return source_; }  // file name, for messages
  [[noreturn]] void fail_at(std::string_view key, std::string_view rule) const;

 private:
  std::string source_;
  std::map<std::string, MetadataValue, std::less<>> values_;
};

std::string to_string(const MetadataValue& value, size_t max_items = 8);

// A tensor in a mapped file. `shape` is row-major with the slowest dimension first ([out_features, in_features]),
// whatever the container's own order. `format` is a row id of formats/ ("F32", "BF16", "Q4_1", "I32", ...).
// Does not own the bytes: the file that gave it must outlive it.
struct TensorView {
  std::string name;
  std::string format;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;
};

}  // namespace frugal
