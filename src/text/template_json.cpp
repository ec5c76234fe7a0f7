// tojson, as transformers defines it: json.dumps with ensure_ascii=False by default and nothing escaped for HTML.
#include <algorithm>
#include <cmath>

#include "text/template_filters.h"
#include "text/template_text.h"

namespace frugal::text::jinja {
namespace {

class JsonWriter {
 public:
  Render& r;
  bool ascii = false, sort_keys = false;
  std::optional<Text> indent;  // one level
  Text item_separator{", "}, key_separator{": "};

  Text write(const Value& value) {
    append(value, 0);
    return std::move(out_);
  }

 private:
  void append(const Value& value, int level) {
    r.budget.step();
    r.budget.text(out_.size());
    if (value.is_none()) return out_.append("null");
    if (const bool* flag = std::get_if<bool>(&value)) return out_.append(*flag ? "true" : "false");
    if (const auto number = number_of(value)) return out_.append(number_text(*number));
    if (value.string()) return append_string(value.text());
    if (value.dict()) return append_object(*value.dict(), level);
    const ListData* list = value.list();
    if (list && (list->kind == ListKind::list || list->kind == ListKind::tuple)) return append_array(*list, level);
    template_error("Object of type {} is not JSON serializable", type_name(value));
  }

  static std::string number_text(const Number& number) {
    if (!number.is_float) return integer_text(number.integer);
    if (std::isnan(number.real)) return "NaN";
    if (std::isinf(number.real)) return number.real < 0 ? "-Infinity" : "Infinity";
    return float_repr(number.real);
  }

  void line(int level) {
    if (!indent) return;
    out_.append("\n");
    for (int i = 0; i < level; ++i) out_.append(*indent);
    r.budget.text(out_.size());
  }

  void append_array(const ListData& list, int level) {
    if (list.items.empty()) return out_.append("[]");
    out_.append("[");
    for (size_t i = 0; i < list.items.size(); ++i) {
      if (i > 0) out_.append(item_separator);
      line(level + 1);
      append(list.items[i], level + 1);
    }
    line(level);
    out_.append("]");
  }

  Text key_text(const Value& key) {
    if (key.string()) return key.text();
    if (key.is_none()) return Text("null");
    if (const bool* flag = std::get_if<bool>(&key)) return Text(*flag ? "true" : "false");
    const auto number = number_of(key);
    if (!number) template_error("keys must be str, int, float, bool or None, not {}", type_name(key));
    return Text(number_text(*number));
  }

  void append_object(const DictData& dict, int level) {
    if (dict.entries.empty()) return out_.append("{}");
    std::vector<const std::pair<Value, Value>*> entries;
    for (const auto& entry : dict.entries) entries.push_back(&entry);
    if (sort_keys) {
      std::stable_sort(entries.begin(), entries.end(), [&](const auto* a, const auto* b) { return less(r, a->first, b->first); });
    }
    out_.append("{");
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i > 0) out_.append(item_separator);
      line(level + 1);
      append_string(key_text(entries[i]->first));
      out_.append(key_separator);
      append(entries[i]->second, level + 1);
    }
    line(level);
    out_.append("}");
  }

  void append_escape(char32_t c, char mark) {
    const auto code = static_cast<uint32_t>(c);
    if (code < 0x10000) return out_.append(fmt::format("\\u{:04x}", code), mark);
    out_.append(fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + ((code - 0x10000) >> 10), 0xDC00 + ((code - 0x10000) & 0x3FF)), mark);
  }

  void append_string(const Text& text) {
    static constexpr std::string_view kPlain = "\"\\\n\r\t\f\b", kLetters = "\"\\nrtfb";
    out_.append("\"");
    for (size_t at = 0; at < text.size();) {
      const size_t next = next_code_point(text.bytes, at);
      const char32_t c = code_point_at(text.bytes, at);
      const size_t letter = c < 0x80 ? kPlain.find(static_cast<char>(c)) : std::string_view::npos;
      if (letter != std::string_view::npos) {
        const char escape[] = {'\\', kLetters[letter]};
        out_.append(std::string_view(escape, 2), text.marks[at]);
      } else if (c < 0x20 || (ascii && c >= 0x7F)) {
        append_escape(c, text.marks[at]);
      } else {
        out_.append(text, at, next);
      }
      at = next;
    }
    out_.append("\"");
  }

  Text out_;

 public:
  explicit JsonWriter(Render& render) : r(render) {}
};

}  // namespace

namespace filters {

Value tojson(Render& r, const Value& value, const Arguments& arguments) {
  const Bound bound(arguments, "tojson", {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonWriter writer(r);
  writer.ascii = bound.flag(0, false);
  writer.sort_keys = bound.flag(3, false);
  if (bound[1] && !bound[1]->is_none()) {
    writer.indent = bound[1]->string() ? bound[1]->text() : repeat(r, Text(" "), bound.integer(1, 0));
    writer.item_separator = Text(",");
  }
  if (bound[2] && !bound[2]->is_none()) {
    const std::vector<Value> separators = iterate(r, *bound[2]);
    if (separators.size() != 2 || !separators[0].string() || !separators[1].string()) template_error("separators must be two strings");
    writer.item_separator = separators[0].text();
    writer.key_separator = separators[1].text();
  }
  return make_string(r, writer.write(value));
}

}  // namespace filters
}  // namespace frugal::text::jinja
