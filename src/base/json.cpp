#include "base/json.h"

#include <cmath>
#include <functional>
#include <limits>
#include <mutex>
#include <new>
#include <unordered_set>

#include "base/error.h"

namespace {

using JsonValue = nlohmann::ordered_json;

constexpr std::size_t kReserveBytes = 64 << 10;
alignas(JsonValue) std::byte reserve[kReserveBytes];
std::mutex reserve_mutex;
std::size_t reserve_used = 0, reserve_lists = 0;  // all of it is free again when no list is left

}  // namespace

JsonValue* std::allocator<JsonValue>::allocate(std::size_t count) {
  if (count > std::numeric_limits<std::ptrdiff_t>::max() / sizeof(JsonValue)) throw std::bad_array_new_length();
  const std::size_t bytes = count * sizeof(JsonValue);
  if (void* const memory = ::operator new(bytes, std::nothrow)) return static_cast<JsonValue*>(memory);
  const std::lock_guard lock(reserve_mutex);
  if (bytes > kReserveBytes - reserve_used) throw std::bad_alloc();
  std::byte* const memory = reserve + reserve_used;
  reserve_used += bytes;
  ++reserve_lists;
  return reinterpret_cast<JsonValue*>(memory);
}

void std::allocator<JsonValue>::deallocate(JsonValue* values, std::size_t) noexcept {
  const auto* const memory = reinterpret_cast<const std::byte*>(values);
  if (std::less<>()(memory, reserve) || !std::less<>()(memory, reserve + kReserveBytes)) return ::operator delete(values);
  const std::lock_guard lock(reserve_mutex);
  if (--reserve_lists == 0) reserve_used = 0;
}

namespace frugal {
namespace {

// Builds the value while it checks depth and duplicate keys; nlohmann's own DOM parser checks neither.
class StrictBuilder : public nlohmann::json_sax<Json> {
 public:
  StrictBuilder(std::string_view name, const JsonLimits& limits) : name_(name), limits_(limits) {}

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t& text) override {
    if (!std::isfinite(value)) fail(ErrorKind::corrupt_file, "{}: number {} is out of range", name_, printable(text));
    return add(value);
  }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override { return open(Json::object()); }
  bool start_array(std::size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& value) override {
    if (!keys_.back().insert(value).second) fail(ErrorKind::corrupt_file, "{}: duplicate key \"{}\"", name_, printable(value));
    key_ = std::move(value);
    return true;
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception& error) override {
    fail(ErrorKind::corrupt_file, "{}: offset {}: not valid JSON: {}", name_, position, printable(error.what(), 200));
  }

  Json take() { return std::move(root_); }

 private:
  // Parents stay valid: ordered_json keeps children in a vector, and only the innermost container grows.
  template <typename Value>
  Json* place(Value&& value) {
    if (stack_.empty()) {
      root_ = Json(std::forward<Value>(value));
      return &root_;
    }
    Json& parent = *stack_.back();
    if (parent.is_array()) {
      parent.push_back(Json(std::forward<Value>(value)));
      return &parent.back();
    }
    // push_back to the underlying vector: operator[] would search all earlier keys for each new one.
    auto& members = parent.get_ref<Json::object_t&>();
    using Members = std::vector<Json::object_t::value_type, Json::object_t::Container::allocator_type>;
    static_cast<Members&>(members).emplace_back(std::move(key_), Json(std::forward<Value>(value)));
    return &members.back().second;
  }
  template <typename Value>
  bool add(Value&& value) {
    place(std::forward<Value>(value));
    return true;
  }
  bool open(Json container) {
    if (static_cast<int>(stack_.size()) >= limits_.max_depth) {
      fail(ErrorKind::corrupt_file, "{}: nested deeper than {} levels", name_, limits_.max_depth);
    }
    stack_.push_back(place(std::move(container)));
    keys_.emplace_back();
    return true;
  }
  bool close() {
    stack_.pop_back();
    keys_.pop_back();
    return true;
  }

  std::string name_;
  JsonLimits limits_;
  Json root_;
  std::vector<Json*> stack_;
  std::vector<std::unordered_set<std::string>> keys_;
  std::string key_;
};

}  // namespace

Json parse_json(std::string_view text, std::string_view name, const JsonLimits& limits) {
  if (text.size() > limits.max_bytes) {
    fail(ErrorKind::corrupt_file, "{}: {} bytes of JSON, more than the limit of {}", name, text.size(), limits.max_bytes);
  }
  if (text.starts_with("\xEF\xBB\xBF")) fail(ErrorKind::corrupt_file, "{}: starts with a byte order mark", name);
  // nlohmann's lexer takes a NUL as the end of the input, whatever follows it.
  if (const size_t nul = text.find('\0'); nul != text.npos) fail(ErrorKind::corrupt_file, "{}: offset {}: not valid JSON: NUL byte", name, nul);
  StrictBuilder builder(name, limits);
  if (!Json::sax_parse(text, &builder)) fail(ErrorKind::corrupt_file, "{}: not valid JSON", name);
  return builder.take();
}

JsonObject::JsonObject(const Json& value, std::string path) : value_(&value), path_(std::move(path)) {
  if (!value.is_object()) fail(ErrorKind::corrupt_file, "{}: must be an object, is {}", path_, value.type_name());
}

void JsonObject::fail_at(std::string_view key, std::string_view rule) const {
  const Json* value = find(key);
  fail(ErrorKind::corrupt_file, "{}.{}: {}, is {}", path_, printable(key), rule,
       value ? printable(value->dump(-1, ' ', true, Json::error_handler_t::replace)) : "missing");
}

const Json* JsonObject::find(std::string_view key) const {
  const auto it = value_->find(key);
  return it == value_->end() || it->is_null() ? nullptr : &*it;
}

bool JsonObject::has(std::string_view key) const { return find(key) != nullptr; }

int64_t JsonObject::integer(std::string_view key, int64_t min, int64_t max) const {
  const Json* value = find(key);
  const auto rule = [&] { return fmt::format("must be an integer in {}..{}", min, max); };
  if (!value || !value->is_number_integer()) fail_at(key, rule());
  if (value->is_number_unsigned() && value->get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) fail_at(key, rule());
  const auto number = value->get<int64_t>();
  if (number < min || number > max) fail_at(key, rule());
  return number;
}

int64_t JsonObject::integer_or(std::string_view key, int64_t fallback, int64_t min, int64_t max) const { return has(key) ? integer(key, min, max) : fallback; }

double JsonObject::number(std::string_view key, double min, double max) const {
  const Json* value = find(key);
  if (!value || !value->is_number()) fail_at(key, fmt::format("must be a number in {}..{}", min, max));
  const double number = value->get<double>();
  if (!(number >= min && number <= max)) fail_at(key, fmt::format("must be a number in {}..{}", min, max));
  return number;
}

double JsonObject::number_or(std::string_view key, double fallback, double min, double max) const { return has(key) ? number(key, min, max) : fallback; }

bool JsonObject::boolean_or(std::string_view key, bool fallback) const {
  const Json* value = find(key);
  if (!value) return fallback;
  if (!value->is_boolean()) fail_at(key, "must be true or false");
  return value->get<bool>();
}

std::string JsonObject::text(std::string_view key) const {
  const Json* value = find(key);
  if (!value || !value->is_string()) fail_at(key, "must be a string");
  return value->get<std::string>();
}

std::string JsonObject::text_or(std::string_view key, std::string_view fallback) const { return has(key) ? text(key) : std::string(fallback); }

std::vector<double> JsonObject::numbers(std::string_view key) const {
  const Json* value = find(key);
  if (!value || !value->is_array()) fail_at(key, "must be an array of numbers");
  std::vector<double> result;
  for (const Json& item : *value) {
    if (!item.is_number()) fail_at(key, "must be an array of numbers");
    result.push_back(item.get<double>());
  }
  return result;
}

std::vector<std::string> JsonObject::texts(std::string_view key) const {
  const Json* value = find(key);
  if (!value || !value->is_array()) fail_at(key, "must be an array of strings");
  std::vector<std::string> result;
  for (const Json& item : *value) {
    if (!item.is_string()) fail_at(key, "must be an array of strings");
    result.push_back(item.get<std::string>());
  }
  return result;
}

JsonObject JsonObject::object(std::string_view key) const {
  const Json* value = find(key);
  if (!value) fail_at(key, "must be an object");
  return JsonObject(*value, fmt::format("{}.{}", path_, key));
}

}  // namespace frugal
