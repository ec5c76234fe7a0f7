// Numbers, strings and arrays of a conjunction: the keywords of all its members joined.
#include <algorithm>

#include "text/grammar/schema_compiler.h"
#include "text/grammar/schema_formats.h"
#include "text/grammar/text_rules.h"

namespace frugal::text::grammar {

void SchemaCompiler::tighten(std::optional<DecimalBound>& bound, uint32_t part, const char* keyword, bool exclusive, bool is_min) {
  const Json* value = document_.find(part, keyword);
  if (!value) return;
  if (value->is_boolean() && exclusive) {  // draft 4: makes the other keyword exclusive
    if (document_.ref_stands_alone()) return;
    document_.fail_at(part, keyword, ErrorKind::invalid_input, "a number is expected; a boolean is of draft 4, which $schema must then name");
  }
  if (!value->is_number()) document_.fail_at(part, keyword, ErrorKind::invalid_input, "a number is expected, not {}", printable(value->dump()));
  if (!exclusive) {
    const Json* flag = document_.find(part, is_min ? "exclusiveMinimum" : "exclusiveMaximum");
    exclusive = flag && flag->is_boolean() && flag->get<bool>();
  }
  const std::optional<DecimalBound> own = decimal_bound(*value, exclusive);
  if (!own || (own->whole.size() > JsonNodes::kMaxDigits && own->negative != is_min)) {
    document_.fail_at(part, keyword, ErrorKind::unsupported, "a bound that needs numbers of more than {} digits", JsonNodes::kMaxDigits);
  }
  if (bound) {
    const int order = compare(*own, *bound);
    const bool stricter = order == 0 ? exclusive : (order > 0) == is_min;
    if (!stricter) return;
  }
  bound = own;
}

NodeId SchemaCompiler::number_node(const Conjunction& all, bool integer) {
  NumberRange range{.integer = integer};
  for (const Member& member : all) {
    tighten(range.min, member.part, "minimum", false, true);
    tighten(range.min, member.part, "exclusiveMinimum", true, true);
    tighten(range.max, member.part, "maximum", false, false);
    tighten(range.max, member.part, "exclusiveMaximum", true, false);
  }
  return json_.number(range);
}

NodeId SchemaCompiler::string_node(const Conjunction& all) {
  TextRules rules;
  const char* last_keyword = "pattern";
  uint32_t last_part = 0;
  for (const Member& member : all) {
    const uint32_t part = member.part;
    rules.min = std::max(rules.min, document_.count(part, "minLength").value_or(0));
    rules.max = std::min(rules.max, document_.count(part, "maxLength").value_or(kUnlimited));
    for (const char* keyword : {"pattern", "format"}) {
      const Json* value = document_.find(part, keyword);
      if (!value) continue;
      if (!value->is_string()) document_.fail_at(part, keyword, ErrorKind::invalid_input, "a text is expected, not {}", value->type_name());
      std::string pattern = value->get<std::string>();
      if (keyword == std::string_view("format")) {
        const std::string_view known = pattern_of_format(pattern);
        if (known.empty() && lenient_) continue;
        if (known.empty()) document_.fail_at(part, keyword, ErrorKind::unsupported, "{} cannot be enforced, only {}", printable(pattern), names_of_formats());
        pattern = known;
      }
      rules.patterns.push_back({&shared_.regex(pattern, fmt::format("{}/{}", printable(document_.pointer(part), 400), keyword))});
      last_keyword = keyword;
      last_part = part;
    }
  }
  if (rules.min > rules.max) return builder_.never();
  if (rules.patterns.empty()) return json_.string_of_length(rules.min, rules.max);
  const GroupScope scope(builder_);
  if (rules.patterns.size() == 1) {
    const Regex& regex = *rules.patterns[0].regex;
    const RegexLength length = regex_length(regex, true);
    if (length.min >= rules.min && (length.max <= rules.max)) {
      const NodeId body = regex_nodes(regex, true, builder_, [&](const CharSet& set) { return json_.plain_char(set); });
      return builder_.sequence({builder_.byte('"'), body, builder_.byte('"')});
    }
  }
  const std::optional<NodeId> rest = text_under_rules(rules, builder_, json_);
  if (!rest)
    document_.fail_at(last_part, last_keyword, ErrorKind::unsupported, "this expression with the other rules for the same text needs too large an automaton");
  return builder_.sequence(builder_.byte('"'), *rest);
}

NodeId SchemaCompiler::array_node(const Conjunction& all) {
  uint32_t min = 0, max = kUnlimited;
  size_t leading = 0;
  struct Rules {
    uint32_t part;
    const Json *first = nullptr, *others = nullptr;  // by position, and of all after those
    const char *first_keyword = "", *others_keyword = "";
  };
  std::vector<Rules> lists;
  for (const Member& member : all) {
    const uint32_t part = member.part;
    min = std::max(min, document_.count(part, "minItems").value_or(0));
    max = std::min(max, document_.count(part, "maxItems").value_or(kUnlimited));
    Rules rules{.part = part};
    const Json* items = document_.find(part, "items");
    if (items && items->is_array()) {  // before 2020-12
      rules = {part, items, document_.find(part, "additionalItems"), "items", "additionalItems"};
      if (document_.find(part, "prefixItems"))
        document_.fail_at(part, "prefixItems", ErrorKind::invalid_input, "beside a list of items, the older spelling of the same");
    } else {
      rules = {part, document_.list(part, "prefixItems", false), items, "prefixItems", "items"};
    }
    if (rules.first) leading = std::max(leading, rules.first->size());
    lists.push_back(rules);
  }
  if (min > max) return builder_.never();
  const auto item_at = [&](size_t index) {
    Conjunction rules;
    for (const Rules& list : lists) {
      if (list.first && index < list.first->size()) {
        rules.push_back(member((*list.first)[index], list.part, fmt::format("{}/{}", list.first_keyword, index)));
      } else if (list.others) {
        rules.push_back(member(*list.others, list.part, list.others_keyword));
      }
    }
    return rules.empty() ? json_.any_value() : reach(std::move(rules));
  };
  // From the back: what may follow after `i` items.
  const size_t own = std::min<size_t>(leading, max);
  NodeId rest = json_.space();
  if (max > own || own == 0) {
    const uint32_t more = max == kUnlimited ? kUnlimited : max - static_cast<uint32_t>(own);
    const auto needed = static_cast<uint32_t>(min > own ? min - own : 0);
    const NodeId item = max > own ? item_at(leading) : builder_.never();
    if (own == 0) {
      const NodeId others = builder_.repeat(builder_.sequence(json_.comma(), item), needed > 0 ? needed - 1 : 0,
                                            more == kUnlimited ? more
                                            : more > 0         ? more - 1
                                                               : 0);
      const NodeId filled = more == 0 ? builder_.never() : builder_.sequence({item, others, json_.space()});
      return json_.in_brackets(min > 0 ? filled : builder_.optional(filled));
    }
    rest = builder_.sequence(builder_.repeat(builder_.sequence(json_.comma(), item), needed, more), json_.space());
  }
  for (size_t i = own; i-- > 0;) {
    const NodeId item = builder_.sequence({i > 0 ? json_.comma() : builder_.empty(), item_at(i), rest});
    rest = i < min ? item : builder_.alternatives({item, i > 0 ? json_.space() : builder_.empty()});
  }
  return json_.in_brackets(rest);
}

}  // namespace frugal::text::grammar
