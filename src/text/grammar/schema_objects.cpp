// Objects of a conjunction. Declared properties come in the order in which the schema names them, optional ones may be left out,
// and names that are not declared come last. No declared name is written twice, in whatever spelling.
#include <algorithm>

#include "text/grammar/schema_compiler.h"
#include "text/grammar/text_rules.h"

namespace frugal::text::grammar {

struct SchemaCompiler::ObjectShape {
  struct Pattern {
    const Regex* regex;
    uint32_t part;
    Member rules;
  };
  struct Part {
    uint32_t part;
    const Json *properties, *additional;
  };
  std::vector<Part> parts = {};
  std::vector<std::string> names = {};  // declared or required
  std::set<std::string> required = {};
  std::vector<Pattern> patterns = {};
  uint32_t min = 0, max = kUnlimited;
};

void SchemaCompiler::collect(const Conjunction& all, ObjectShape& shape) {
  std::set<std::string> known;
  const auto declare = [&](const std::string& name) {
    if (known.insert(name).second) shape.names.push_back(name);
  };
  std::vector<std::string> required;
  for (const Member& member : all) {
    const uint32_t part = member.part;
    shape.parts.push_back({part, document_.object(part, "properties"), document_.find(part, "additionalProperties")});
    if (shape.parts.back().properties) {
      for (const auto& [name, rules] : shape.parts.back().properties->items()) declare(name);
    }
    if (const Json* list = document_.list(part, "required", true)) {
      for (const Json& name : *list) {
        if (!name.is_string()) document_.fail_at(part, "required", ErrorKind::invalid_input, "a list of names is expected");
        required.push_back(name.get<std::string>());
      }
    }
    if (const Json* patterns = document_.object(part, "patternProperties")) {
      for (const auto& [pattern, rules] : patterns->items()) {
        const std::string path = "patternProperties/" + escape_pointer(pattern);
        const Regex& regex = shared_.regex(pattern, printable(document_.pointer(part) + "/" + path, 400));
        shape.patterns.push_back({&regex, part, this->member(rules, part, path)});
      }
    }
    shape.min = std::max(shape.min, document_.count(part, "minProperties").value_or(0));
    shape.max = std::min(shape.max, document_.count(part, "maxProperties").value_or(kUnlimited));
  }
  for (const std::string& name : required) {
    declare(name);
    shape.required.insert(name);
  }
}

SchemaCompiler::Conjunction SchemaCompiler::rules_for_name(const ObjectShape& shape, const std::string& name) {
  Conjunction rules;
  for (const ObjectShape::Part& part : shape.parts) {
    bool declared = false;
    if (part.properties) {
      const auto it = part.properties->find(name);
      if (it != part.properties->end()) {
        declared = true;
        rules.push_back(member(*it, part.part, "properties/" + escape_pointer(name)));
      }
    }
    for (const ObjectShape::Pattern& pattern : shape.patterns) {
      if (pattern.part != part.part || !regex_finds(*pattern.regex, name)) continue;
      declared = true;
      rules.push_back(pattern.rules);
    }
    if (!declared && part.additional) rules.push_back(member(*part.additional, part.part, "additionalProperties"));
  }
  return rules;
}

// A member whose name is not declared: split by which patterns the name matches.
NodeId SchemaCompiler::extra_pair(const ObjectShape& shape) {
  constexpr size_t kMaxPatterns = 6;
  if (shape.patterns.size() > kMaxPatterns) {
    document_.fail_at(shape.patterns[0].part, "patternProperties", ErrorKind::unsupported, "more than {} patterns for the names of one object", kMaxPatterns);
  }
  std::vector<NodeId> pairs;
  for (uint32_t matched = 0; matched < 1u << shape.patterns.size(); ++matched) {
    Conjunction rules;
    for (const ObjectShape::Part& part : shape.parts) {
      bool declared = false;
      for (size_t i = 0; i < shape.patterns.size(); ++i) {
        if (shape.patterns[i].part != part.part || !(matched >> i & 1)) continue;
        declared = true;
        rules.push_back(shape.patterns[i].rules);
      }
      if (!declared && part.additional) rules.push_back(member(*part.additional, part.part, "additionalProperties"));
    }
    if (std::any_of(rules.begin(), rules.end(), [&](const Member& rule) { return document_.schema(rule.part) == false; })) continue;
    NodeId name = builder_.never();
    if (shape.patterns.empty()) {
      name = json_.key_unlike(shape.names);
    } else {
      TextRules text{.forbidden = shape.names};
      for (size_t i = 0; i < shape.patterns.size(); ++i) text.patterns.push_back({shape.patterns[i].regex, (matched >> i & 1) != 0});
      const std::optional<NodeId> node = text_under_rules(text, builder_, json_);
      if (!node) document_.fail_at(shape.patterns[0].part, "patternProperties", ErrorKind::unsupported, "these patterns need too large an automaton");
      name = *node;
    }
    const NodeId value = rules.empty() ? json_.any_value() : reach(std::move(rules));
    pairs.push_back(builder_.sequence({builder_.byte('"'), name, json_.colon(), value}));
  }
  return builder_.alternatives(std::move(pairs));
}

NodeId SchemaCompiler::members(const ObjectShape& shape) {
  const bool declares = std::ranges::any_of(shape.parts, [](const ObjectShape::Part& part) { return part.properties != nullptr; });
  const bool speaks_of_others = !shape.patterns.empty() || std::ranges::any_of(shape.parts, [](const ObjectShape::Part& part) { return part.additional; });
  // Not where that could make a schema that has values one that has none, or a proof of it.
  const bool only_declared = shared_.undeclared == Undeclared::left_out && !lenient_ && declares && !speaks_of_others && shape.min <= shape.names.size();
  const NodeId extra = only_declared ? builder_.never() : extra_pair(shape);
  const bool has_extra = !builder_.is_never(extra);
  const size_t count = shape.names.size();
  const auto most = static_cast<uint32_t>(count);
  if (has_extra && shape.min > shape.required.size() + 1) {
    document_.fail_at(shape.parts[0].part, "minProperties", ErrorKind::unsupported,
                      "{} with names that are not declared, whose being different is not enforced", shape.min);
  }
  // Counted up to what still makes a difference.
  const bool counts_up = shape.max < most || (has_extra && shape.max != kUnlimited);
  const uint32_t top = counts_up ? std::min(shape.max, most) : std::min(shape.min, most);
  if ((count + 1) * (top + 1) > 200'000) document_.fail_at(shape.parts[0].part, "minProperties", ErrorKind::unsupported, "too many properties to count");

  // By how many are written so far: `more` is one member at least, without a comma before it; `rest` follows a member.
  std::vector<NodeId> more(top + 1), rest(top + 1);
  const auto close = [&](bool may_end) {
    for (uint32_t written = 0; written <= top; ++written) {
      const NodeId end = may_end && written >= shape.min ? json_.space() : builder_.never();
      rest[written] = builder_.alternatives({end, builder_.sequence(json_.comma(), more[written])});
    }
  };
  for (uint32_t written = 0; written <= top; ++written) {
    const uint32_t room = shape.max == kUnlimited ? kUnlimited : shape.max > written ? shape.max - written : 0;
    const NodeId others = builder_.repeat(builder_.sequence(json_.comma(), extra), 0, room == kUnlimited || room == 0 ? room : room - 1);
    more[written] = has_extra && room > 0 && written + 1 >= shape.min ? builder_.sequence({extra, others, json_.space()}) : builder_.never();
  }
  bool may_end = true;
  close(may_end);
  for (size_t i = count; i-- > 0;) {
    const std::string& name = shape.names[i];
    const Conjunction rules = rules_for_name(shape, name);
    const NodeId pair = builder_.sequence({json_.quoted(name), json_.colon(), rules.empty() ? json_.any_value() : reach(rules)});
    const bool required = shape.required.contains(name);
    for (uint32_t written = 0; written <= top; ++written) {
      const bool full = counts_up && written >= shape.max;
      const NodeId taken = full ? builder_.never() : builder_.sequence(pair, rest[std::min(written + 1, top)]);
      more[written] = required ? taken : builder_.alternatives({taken, more[written]});
    }
    may_end = may_end && !required;
    close(may_end);
  }
  return may_end && shape.min == 0 ? builder_.optional(more[0]) : more[0];
}

NodeId SchemaCompiler::object_node(const Conjunction& all) {
  constexpr size_t kMaxProperties = 1'000;
  ObjectShape shape;
  collect(all, shape);
  if (shape.min > shape.max) return builder_.never();
  if (std::any_of(shape.required.begin(), shape.required.end(), [&](const std::string& name) { return is_plainly_never(rules_for_name(shape, name)); }))
    return builder_.never();
  if (shape.names.size() > kMaxProperties) {
    document_.fail_at(shape.parts[0].part, "properties", ErrorKind::unsupported, "{} names, {} at most", shape.names.size(), kMaxProperties);
  }
  const bool plain = shape.names.empty() && shape.patterns.empty() && shape.min == 0 && shape.max == kUnlimited &&
                     std::all_of(shape.parts.begin(), shape.parts.end(), [](const ObjectShape::Part& part) { return !part.additional; });
  return plain ? json_.any_object() : json_.in_braces(members(shape));
}

}  // namespace frugal::text::grammar
