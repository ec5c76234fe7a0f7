#include "base/metadata.h"

#include <limits>
#include <utility>

#include "base/error.h"

namespace frugal {

const MetadataValue* Metadata::find(std::string_view key) const {
  const auto it = values_.find(key);
  return it == values_.end() ? nullptr : &it->second;
}

void Metadata::fail_at(std::string_view key, std::string_view rule) const {
  const MetadataValue* value = find(key);
  fail(ErrorKind::corrupt_file, "{}: key {}: {}, is {}", source_, printable(key), rule, value ? printable(to_string(*value)) : "missing");
}

int64_t Metadata::integer(std::string_view key, int64_t min, int64_t max) const {
  const MetadataValue* value = find(key);
  const auto rule = [&] { return fmt::format("must be an integer in {}..{}", min, max); };
  if (!value) fail_at(key, rule());
  int64_t number = 0;
  if (const auto* as_signed = std::get_if<int64_t>(value)) {
    number = *as_signed;
  } else if (const auto* as_unsigned = std::get_if<uint64_t>(value); as_unsigned && std::in_range<int64_t>(*as_unsigned)) {
    number = static_cast<int64_t>(*as_unsigned);
  } else {
    fail_at(key, rule());
  }
  if (number < min || number > max) fail_at(key, rule());
  return number;
}

int64_t Metadata::integer_or(std::string_view key, int64_t fallback, int64_t min, int64_t max) const { return has(key) ? integer(key, min, max) : fallback; }

double Metadata::number(std::string_view key) const {
  const MetadataValue* value = find(key);
  if (value) {
    if (const auto* number = std::get_if<double>(value)) return *number;
    if (const auto* number = std::get_if<int64_t>(value)) return static_cast<double>(*number);
    if (const auto* number = std::get_if<uint64_t>(value)) return static_cast<double>(*number);
  }
  fail_at(key, "must be a number");
}

double Metadata::number_or(std::string_view key, double fallback) const { return has(key) ? number(key) : fallback; }

bool Metadata::boolean_or(std::string_view key, bool fallback) const {
  const MetadataValue* value = find(key);
  if (!value) return fallback;
  if (const auto* flag = std::get_if<bool>(value)) return *flag;
  fail_at(key, "must be true or false");
}

const std::string& Metadata::text(std::string_view key) const {
  const MetadataValue* value = find(key);
  if (value) {
    if (const auto* text = std::get_if<std::string>(value)) return *text;
  }
  fail_at(key, "must be a string");
}

std::string Metadata::text_or(std::string_view key, std::string_view fallback) const { return has(key) ? text(key) : std::string(fallback); }

const std::vector<std::string>& Metadata::texts(std::string_view key) const {
  const MetadataValue* value = find(key);
  if (value) {
    if (const auto* texts = std::get_if<std::vector<std::string>>(value)) return *texts;
  }
  fail_at(key, "must be an array of strings");
}

std::vector<int64_t> Metadata::integers(std::string_view key) const {
  const MetadataValue* value = find(key);
  if (value) {
    if (const auto* numbers = std::get_if<std::vector<int64_t>>(value)) return *numbers;
    if (const auto* flags = std::get_if<std::vector<bool>>(value)) return {flags->begin(), flags->end()};
    if (const auto* numbers = std::get_if<std::vector<uint64_t>>(value)) {
      std::vector<int64_t> result;
      for (const uint64_t number : *numbers) {
        if (!std::in_range<int64_t>(number)) fail_at(key, "must be an array of integers");
        result.push_back(static_cast<int64_t>(number));
      }
      return result;
    }
  }
  fail_at(key, "must be an array of integers");
}

std::vector<double> Metadata::numbers(std::string_view key) const {
  const MetadataValue* value = find(key);
  if (value) {
    if (const auto* numbers = std::get_if<std::vector<double>>(value)) return *numbers;
    const std::vector<int64_t> whole = integers(key);
    return {whole.begin(), whole.end()};
  }
  fail_at(key, "must be an array of numbers");
}

std::string to_string(const MetadataValue& value, size_t max_items) {
  return std::visit(
      [&](const auto& held) -> std::string {
        using T = std::decay_t<decltype(held)>;
        if constexpr (std::is_same_v<T, std::string>) {
          return held;
        } else if constexpr (std::is_arithmetic_v<T>) {
          return fmt::format("{}", held);
        } else {
          std::string out = "[";
          for (size_t i = 0; i < held.size() && i < max_items; ++i) {
            out += fmt::format("{}{}", i ? ", " : "", typename T::value_type(held[i]));
          }
          return out + (held.size() > max_items ? fmt::format(", ... {} items]", held.size()) : "]");
        }
      },
      value);
}

}  // namespace frugal
