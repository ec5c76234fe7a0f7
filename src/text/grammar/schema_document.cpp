#include "text/grammar/schema_document.h"

#include <algorithm>
#include <array>

namespace frugal::text::grammar {

namespace {

// Depth first without recursion: a value that another reader made may be of any depth.
void check_size(const Json& root) {
  std::vector<std::pair<const Json*, int>> work = {{&root, 1}};
  size_t values = 0, bytes = 0;
  while (!work.empty()) {
    const auto [value, depth] = work.back();
    work.pop_back();
    if (depth > SchemaDocument::kMaxDepth) fail(ErrorKind::invalid_input, "schema: JSON nested deeper than {}", SchemaDocument::kMaxDepth);
    ++values;
    bytes += value->is_string() ? value->get_ref<const std::string&>().size() + 2 : 2;
    if (value->is_object()) {
      for (const auto& [key, member] : value->items()) {
        bytes += key.size() + 3;
        work.emplace_back(&member, depth + 1);
      }
    } else if (value->is_array()) {
      for (const Json& item : *value) work.emplace_back(&item, depth + 1);
    }
    if (bytes > SchemaDocument::kMaxBytes) fail(ErrorKind::invalid_input, "schema: more than {} bytes", SchemaDocument::kMaxBytes);
  }
}

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  const char lower = static_cast<char>(c | 0x20);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

std::string percent_decoded(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() && hex_value(text[i + 1]) >= 0 && hex_value(text[i + 2]) >= 0) {
      out += static_cast<char>(hex_value(text[i + 1]) * 16 + hex_value(text[i + 2]));
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

std::string unescape_pointer(std::string_view step) {
  std::string out;
  for (size_t i = 0; i < step.size(); ++i) {
    if (step[i] == '~' && i + 1 < step.size() && (step[i + 1] == '0' || step[i + 1] == '1')) {
      out += step[++i] == '0' ? '~' : '/';
    } else {
      out += step[i];
    }
  }
  return out;
}

const Json* child_of(const Json& value, const std::string& step) {
  if (value.is_object()) {
    const auto it = value.find(step);
    return it == value.end() ? nullptr : &*it;
  }
  if (!value.is_array() || step.empty() || step.size() > 6 || step.find_first_not_of("0123456789") != std::string::npos) return nullptr;
  size_t index = 0;
  for (const char c : step) index = index * 10 + static_cast<size_t>(c - '0');
  return index < value.size() ? &value[index] : nullptr;
}

}  // namespace

std::string escape_pointer(std::string_view name) {
  std::string out;
  for (const char c : name) {
    if (c == '~') {
      out += "~0";
    } else if (c == '/') {
      out += "~1";
    } else {
      out += c;
    }
  }
  return out;
}

SchemaDocument::SchemaDocument(const Json& root) {
  check_size(root);
  parts_.push_back({&root, "#"});
  known_[&root] = 0;
  if (!root.is_object() && !root.is_boolean()) fail(ErrorKind::invalid_input, "schema: #: an object or a boolean is expected, not {}", root.type_name());
  check_dialect();
}

void SchemaDocument::check_dialect() {
  const Json* dialect = find(0, "$schema");
  if (!dialect) return;
  if (!dialect->is_string()) fail_at(0, "$schema", ErrorKind::invalid_input, "a text is expected");
  std::string name = dialect->get<std::string>();
  for (const std::string_view prefix : {"http://", "https://"}) {
    if (name.starts_with(prefix)) name.erase(0, prefix.size());
  }
  while (name.ends_with('#')) name.pop_back();
  constexpr std::array kOld = {"json-schema.org/draft-04/schema", "json-schema.org/draft-06/schema", "json-schema.org/draft-07/schema"};
  constexpr std::array kNew = {"json-schema.org/draft/2019-09/schema", "json-schema.org/draft/2020-12/schema", "json-schema.org/schema"};
  ref_stands_alone_ = std::find(kOld.begin(), kOld.end(), name) != kOld.end();
  if (!ref_stands_alone_ && std::find(kNew.begin(), kNew.end(), name) == kNew.end()) {
    fail_at(0, "$schema", ErrorKind::unsupported, "{} is none of the drafts 4, 6, 7, 2019-09 and 2020-12", printable(name));
  }
}

uint32_t SchemaDocument::part(const Json& schema, uint32_t parent, const std::string& path) {
  const auto [it, fresh] = known_.try_emplace(&schema, static_cast<uint32_t>(parts_.size()));
  if (!fresh) return it->second;
  if (parts_.size() >= kMaxParts) fail(ErrorKind::invalid_input, "schema: more than {} subschemas", kMaxParts);
  parts_.push_back({&schema, parts_[parent].pointer + "/" + path});
  if (!schema.is_object() && !schema.is_boolean()) {
    fail(ErrorKind::invalid_input, "{}: a schema is expected (an object or a boolean), not {}", printable(parts_.back().pointer, 400), schema.type_name());
  }
  return it->second;
}

uint32_t SchemaDocument::resolve(uint32_t part) {
  const Json& ref = *find(part, "$ref");
  if (!ref.is_string()) fail_at(part, "$ref", ErrorKind::invalid_input, "a text is expected");
  const std::string target = ref.get<std::string>();
  if (!target.starts_with('#')) fail_at(part, "$ref", ErrorKind::unsupported, "{} is not inside this schema, and nothing is fetched", printable(target));
  const std::string pointer = percent_decoded(std::string_view(target).substr(1));
  if (!pointer.empty() && pointer[0] != '/') fail_at(part, "$ref", ErrorKind::unsupported, "{} is an anchor, not a JSON pointer", printable(target));
  const Json* at = parts_[0].schema;
  std::string path;
  for (size_t begin = 1; begin <= pointer.size();) {
    const size_t end = std::min(pointer.find('/', begin), pointer.size());
    const std::string step = unescape_pointer(std::string_view(pointer).substr(begin, end - begin));
    at = child_of(*at, step);
    if (!at) fail_at(part, "$ref", ErrorKind::invalid_input, "nothing is at {}", printable(target));
    if (at->is_object() && (at->contains("$id") || at->contains("id")) && end < pointer.size()) {
      fail_at(part, "$ref", ErrorKind::unsupported, "{} leads through a schema with an identifier of its own", printable(target));
    }
    path += (path.empty() ? "" : "/") + escape_pointer(step);
    begin = end + 1;
  }
  return at == parts_[0].schema ? 0 : this->part(*at, 0, path);
}

const Json* SchemaDocument::find(uint32_t part, std::string_view keyword) const {
  const Json& schema = *parts_[part].schema;
  if (!schema.is_object()) return nullptr;
  const auto it = schema.find(keyword);
  return it == schema.end() ? nullptr : &*it;
}

std::optional<uint32_t> SchemaDocument::count(uint32_t part, std::string_view keyword) const {
  const Json* value = find(part, keyword);
  if (!value) return std::nullopt;
  const double number = value->is_number() ? value->get<double>() : -1;
  if (!(number >= 0) || number != static_cast<double>(static_cast<uint64_t>(std::min(number, 1e18)))) {
    fail_at(part, keyword, ErrorKind::invalid_input, "a whole number from 0 is expected, not {}", printable(value->dump()));
  }
  constexpr double kMost = 1'000'000;
  if (number > kMost) fail_at(part, keyword, ErrorKind::invalid_input, "{} is more than {}", printable(value->dump()), kMost);
  return static_cast<uint32_t>(number);
}

const Json* SchemaDocument::object(uint32_t part, std::string_view keyword) const {
  const Json* value = find(part, keyword);
  if (value && !value->is_object()) fail_at(part, keyword, ErrorKind::invalid_input, "an object is expected, not {}", value->type_name());
  return value;
}

const Json* SchemaDocument::list(uint32_t part, std::string_view keyword, bool may_be_empty) const {
  const Json* value = find(part, keyword);
  if (!value) return nullptr;
  if (!value->is_array() || (value->empty() && !may_be_empty))
    fail_at(part, keyword, ErrorKind::invalid_input, "a list is expected{}", may_be_empty ? "" : " that is not empty");
  return value;
}

}  // namespace frugal::text::grammar
