// The values that a template computes with: Python's, as far as a sandboxed template can see them. Strings remember for
// every byte whether it came from the request; containers are immutable, so only a namespace can form a cycle (Render
// breaks those at its end).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/process.h"
#include "text/chat_template.h"

namespace frugal::text::jinja {

class Render;

template <typename... Args>
[[noreturn]] void template_error(fmt::format_string<Args...> format, Args&&... args) {
  fail(ErrorKind::invalid_input, format, std::forward<Args>(args)...);
}

// Steps, live bytes and processor time of one render; throws Error{invalid_input} beyond a limit. Time is looked at in steps, so a
// render ends soon after it is over: what a step does is bounded by the size of a text.
class Budget {
 public:
  explicit Budget(const TemplateLimits& limits) : limits_(limits) {}

  void step(size_t count = 1) {
    steps_ += count;
    if (steps_ > limits_.max_steps) template_error("the template needs more than {} steps", limits_.max_steps);
    // Wall time is cheap to read; only when it is over, the time that this thread was really given counts.
    if (watch_.seconds() > limits_.max_seconds && thread_seconds() - begin_ > limits_.max_seconds) {
      template_error("the template needs more than {} s", limits_.max_seconds);
    }
  }
  // Before a text of this size is made or scanned.
  void text(size_t bytes) {
    if (bytes > limits_.max_output_bytes) template_error("a text of {} bytes is over the limit of {}", bytes, limits_.max_output_bytes);
    step(bytes / 4096);
  }
  void hold(size_t bytes) {
    live_ += bytes;
    if (live_ <= limits_.max_live_bytes) return;
    live_ -= bytes;
    template_error("the values of the template need more than {} bytes", limits_.max_live_bytes);
  }
  void release(size_t bytes) { live_ -= bytes; }

 private:
  TemplateLimits limits_;
  Stopwatch watch_;
  double begin_ = thread_seconds();
  size_t steps_ = 0;
  size_t live_ = 0;
};

// Bytes counted against a budget for as long as this lives. Inputs and constants have no budget.
class Held {
 public:
  Held() = default;
  Held(Budget* budget, size_t bytes) : budget_(budget), bytes_(bytes) {
    if (budget_) budget_->hold(bytes_);
  }
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;
  ~Held() {
    if (budget_) budget_->release(bytes_);
  }

 private:
  Budget* budget_ = nullptr;
  size_t bytes_ = 0;
};

constexpr char kFromTemplate = 0;
constexpr char kFromData = 1;
constexpr char kGeneration = 2;

// UTF-8 with one mark (bits above) per byte.
struct Text {
  std::string bytes;
  std::string marks;

  Text() = default;
  Text(std::string_view text, char mark = kFromTemplate) : bytes(text), marks(text.size(), mark) {}
  void append(const Text& other) {
    bytes += other.bytes;
    marks += other.marks;
  }
  void append(std::string_view text, char mark = kFromTemplate) {
    bytes += text;
    marks.append(text.size(), mark);
  }
  void append(const Text& other, size_t begin, size_t end) {
    bytes.append(other.bytes, begin, end - begin);
    marks.append(other.marks, begin, end - begin);
  }
  Text slice(size_t begin, size_t end) const {
    Text out;
    out.append(*this, begin, end);
    return out;
  }
  size_t size() const { return bytes.size(); }
  // kFromData if any byte is: the mark of a text that was computed from this one as a whole.
  char mark() const { return marks.find_first_not_of(kFromTemplate) == std::string::npos ? kFromTemplate : kFromData; }
};

// Integers are exact up to 127 bits; beyond it arithmetic is an error, not a wrong number.
__extension__ typedef __int128 Integer;

struct StringData;
struct ListData;
struct DictData;
struct NamespaceData;
class Object;
struct None {};
struct Undefined {
  std::shared_ptr<const std::string> message;  // what to say when it is used
};

class Value : public std::variant<Undefined, None, bool, Integer, double, std::shared_ptr<const StringData>, std::shared_ptr<const ListData>,
                                  std::shared_ptr<const DictData>, std::shared_ptr<NamespaceData>, std::shared_ptr<Object>> {
 public:
  using variant::variant;
  template <typename T>
  bool is() const {
    return std::holds_alternative<T>(*this);
  }
  bool is_undefined() const { return is<Undefined>(); }
  bool is_none() const { return is<None>(); }
  const StringData* string() const { return pointer<std::shared_ptr<const StringData>>(); }
  const ListData* list() const { return pointer<std::shared_ptr<const ListData>>(); }
  const DictData* dict() const { return pointer<std::shared_ptr<const DictData>>(); }
  NamespaceData* name_space() const { return pointer<std::shared_ptr<NamespaceData>>(); }
  Object* object() const { return pointer<std::shared_ptr<Object>>(); }
  const Text& text() const;  // of a string

 private:
  template <typename P>
  typename P::element_type* pointer() const {
    const P* found = std::get_if<P>(static_cast<const variant*>(this));
    return found ? found->get() : nullptr;
  }
};

enum class ListKind { list, tuple, range, generator, keys, values, items };

constexpr int kMaxValueDepth = 100;

struct StringData {
  Text text;
  Held held;
};
struct ListData {
  ListKind kind = ListKind::list;
  std::vector<Value> items;
  int depth = 1;
  std::string repr;             // range only
  mutable size_t consumed = 0;  // generator only: items that are gone
  Held held;
};
struct DictData {
  std::vector<std::pair<Value, Value>> entries;  // in order, keys unique
  int depth = 1;
  Held held;
};
struct NamespaceData {
  std::vector<std::pair<std::string, Value>> attributes;
};

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

// Something with behaviour: macro, bound method, global function, loop.
class Object {
 public:
  virtual ~Object() = default;
  virtual std::string repr() const = 0;
  virtual bool callable() const { return true; }
  virtual Value call(Render&, const Arguments&);
  virtual std::optional<Value> attribute(Render&, std::string_view) { return std::nullopt; }
};

Value undefined(std::string message);
Value make_string(Render& r, Text text);
Value make_list(Render& r, std::vector<Value> items, ListKind kind = ListKind::list);
Value make_dict(Render& r, std::vector<std::pair<Value, Value>> entries);  // keys already unique
inline Value make_integer(int64_t value) { return Value(Integer{value}); }

// Adds or replaces; throws for an unhashable key.
void dict_set(Render& r, std::vector<std::pair<Value, Value>>& entries, const Value& key, Value value);
const Value* dict_find(Render& r, const DictData& dict, const Value& key);
const Value* dict_find(const DictData& dict, std::string_view key);

// Python's bool(), ==, <, in, str(), repr(), iter(), type().__name__.
bool truthy(const Value& value);
bool equals(Render& r, const Value& a, const Value& b);
bool less(Render& r, const Value& a, const Value& b);
bool contains(Render& r, const Value& container, const Value& item);
bool hashable(const Value& value);
Text to_text(Render& r, const Value& value);
void append_repr(Render& r, const Value& value, Text& out, int depth = 0);
std::vector<Value> iterate(Render& r, const Value& value);
std::string_view type_name(const Value& value);

// A bool counts as 0 or 1, as in Python.
struct Number {
  bool is_float = false;
  Integer integer = 0;
  double real = 0;  // always set
};
std::optional<Number> number_of(const Value& value);
// The value as an index or count; throws for anything but an integer. Clamped to +-2^62, beyond any size.
int64_t index_of(const Value& value, std::string_view what);
std::string float_repr(double value);
std::string integer_text(Integer value);

// JSON as Python would load it; `mark` goes on every text. Throws for invalid UTF-8 and depth beyond kMaxValueDepth.
Value from_json(const Json& json, char mark, int depth = 0);

}  // namespace frugal::text::jinja
