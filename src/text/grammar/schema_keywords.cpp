// Every keyword is either enforced, an annotation, or refused by name. Nothing is skipped in silence.
#include <algorithm>
#include <array>

#include "text/grammar/schema_compiler.h"

namespace frugal::text::grammar {

namespace {

using Words = std::set<std::string_view>;

const Words kEnforced = {"type",
                         "enum",
                         "const",
                         "properties",
                         "required",
                         "additionalProperties",
                         "patternProperties",
                         "minItems",
                         "maxItems",
                         "items",
                         "prefixItems",
                         "additionalItems",
                         "minProperties",
                         "maxProperties",
                         "minLength",
                         "maxLength",
                         "pattern",
                         "format",
                         "minimum",
                         "maximum",
                         "exclusiveMinimum",
                         "anyOf",
                         "oneOf",
                         "exclusiveMaximum",
                         "allOf",
                         "$ref",
                         "$defs",
                         "definitions"};
// They say nothing about which values are valid. Anchors do not, as nothing can refer to them here.
const Words kAnnotations = {"title",     "description", "default",         "example",          "examples",      "deprecated", "readOnly",
                            "writeOnly", "$comment",    "contentEncoding", "contentMediaType", "contentSchema", "$anchor",    "$dynamicAnchor"};
const Words kOnlyAtRoot = {"$schema", "$id", "id"};

}  // namespace

// Structure and spelling, once for each part.
void SchemaCompiler::check_keywords(uint32_t part) {
  if (lenient_ || !checked_.insert(part).second) return;
  const bool alone = document_.ref_stands_alone() && document_.find(part, "$ref");
  static const Words kByType = {"multipleOf",
                                "uniqueItems",
                                "contains",
                                "minContains",
                                "maxContains",
                                "unevaluatedItems",
                                "unevaluatedProperties",
                                "propertyNames",
                                "dependentRequired",
                                "dependentSchemas",
                                "dependencies",
                                "not",
                                "if",
                                "then",
                                "else"};
  for (const auto& [keyword, value] : document_.schema(part).items()) {
    if (alone && keyword != "$ref") continue;
    if (kEnforced.contains(keyword) || kAnnotations.contains(keyword) || kByType.contains(keyword) || keyword.starts_with("x-")) continue;
    if (kOnlyAtRoot.contains(keyword)) {
      if (part == document_.root()) continue;
      document_.fail_at(part, keyword, ErrorKind::unsupported, "a schema inside another with an identifier or dialect of its own");
    }
    document_.fail_at(part, keyword, ErrorKind::unsupported, "this keyword cannot be enforced");
  }
}

// Keywords that are no obstacle where the type that they speak of is not possible, or with a value that says nothing.
void SchemaCompiler::refuse_unenforced(const Conjunction& all, uint32_t types) {
  struct Row {
    const char* keyword;
    uint32_t types;
  };
  static constexpr std::array kRows = {
      Row{"multipleOf", integer_type | fraction_type},
      Row{"uniqueItems", array_type},
      Row{"contains", array_type},
      Row{"unevaluatedItems", array_type},
      Row{"unevaluatedProperties", object_type},
      Row{"propertyNames", object_type},
      Row{"dependentRequired", object_type},
      Row{"dependentSchemas", object_type},
      Row{"dependencies", object_type},
      Row{"not", all_types},
      Row{"if", all_types},
  };
  for (const Member& member : all) {
    for (const Row& row : kRows) {
      const Json* value = document_.find(member.part, row.keyword);
      if (!value || !(types & row.types)) continue;
      const std::string_view keyword = row.keyword;
      const bool says_nothing =
          value->is_boolean() && value->get<bool>() == (keyword == "unevaluatedItems" || keyword == "unevaluatedProperties" || keyword == "propertyNames");
      if (says_nothing && keyword != "contains" && keyword != "if") continue;
      if (keyword == "if" && !document_.find(member.part, "then") && !document_.find(member.part, "else")) continue;
      if (value->is_object() && value->empty() && keyword != "not" && keyword != "contains" && keyword != "if") continue;
      document_.fail_at(member.part, keyword, ErrorKind::unsupported, "this keyword cannot be enforced");
    }
  }
}

}  // namespace frugal::text::grammar
