#include "text/grammar/schema_compiler.h"

#include <algorithm>
#include <cmath>

#include "text/grammar/machine.h"

namespace frugal::text::grammar {

const Regex& SchemaShared::regex(std::string_view pattern, const std::string& what) {
  auto it = regexes_.find(pattern);
  if (it == regexes_.end()) it = regexes_.emplace(pattern, std::make_unique<Regex>(parse_regex(pattern, what))).first;
  return *it->second;
}

void SchemaShared::count_conjunction() {
  if (++conjunctions_ > kMaxConjunctions) fail(ErrorKind::invalid_input, "schema: more than {} combinations of subschemas", kMaxConjunctions);
}

SchemaCompiler::SchemaCompiler(SchemaDocument& document, SchemaShared& shared, Builder& builder, bool lenient)
    : document_(document), shared_(shared), builder_(builder), json_(builder), lenient_(lenient) {}

SchemaCompiler::Conjunction SchemaCompiler::sorted(Conjunction conjunction) {
  std::sort(conjunction.begin(), conjunction.end());
  Conjunction result;
  for (const Member& member : conjunction) {  // one part twice: what is done in one place is done
    if (!result.empty() && result.back().part == member.part) {
      result.back().done |= member.done;
    } else {
      result.push_back(member);
    }
  }
  return result;
}

NodeId SchemaCompiler::reach(Conjunction conjunction) {
  constexpr int kMaxHops = 100;
  for (Member& member : conjunction) {  // a part that is a $ref and nothing else is what it refers to
    for (int hops = 0; hops < kMaxHops && document_.schema(member.part).size() == 1 && document_.find(member.part, "$ref"); ++hops) {
      member.part = document_.resolve(member.part);
    }
  }
  const auto [it, fresh] = known_.try_emplace(sorted(std::move(conjunction)), 0);
  if (fresh) {
    shared_.count_conjunction();
    it->second = builder_.reference();
    queue_.push_back(it);
  }
  return it->second;
}

NodeId SchemaCompiler::compile(Conjunction conjunction) {
  const NodeId root = reach(std::move(conjunction));
  while (!queue_.empty()) {
    const auto next = queue_.back();
    queue_.pop_back();
    const GroupScope scope(builder_);
    builder_.set_target(next->second, node_of(next->first));
  }
  return root;
}

// With all that $ref and allOf add. Nothing if a part is `false`.
std::optional<SchemaCompiler::Conjunction> SchemaCompiler::flattened(const Conjunction& conjunction) {
  struct Step {
    Member member;
    size_t parent;
  };
  constexpr size_t kNone = static_cast<size_t>(-1);
  std::vector<Step> steps;
  std::map<uint32_t, size_t> first;
  for (const Member& member : conjunction) {
    first[member.part] = steps.size();
    steps.push_back({member, kNone});
  }
  for (size_t i = 0; i < steps.size(); ++i) {
    const uint32_t part = steps[i].member.part;
    const auto add = [&](uint32_t added, const char* keyword) {
      for (size_t at = i; at != kNone; at = steps[at].parent) {
        if (steps[at].member.part == added) document_.fail_at(part, keyword, ErrorKind::invalid_input, "leads back to the schema that it is in");
      }
      if (first.try_emplace(added, steps.size()).second) steps.push_back({{added, 0}, i});
    };
    if (document_.schema(part).is_boolean()) {
      if (!document_.schema(part).get<bool>()) return std::nullopt;
      continue;
    }
    check_keywords(part);
    if (document_.find(part, "$ref")) {
      add(document_.resolve(part), "$ref");
      if (document_.ref_stands_alone()) continue;
    }
    if (const Json* all = document_.list(part, "allOf", false)) {
      for (size_t j = 0; j < all->size(); ++j) add(document_.part((*all)[j], part, fmt::format("allOf/{}", j)), "allOf");
    }
  }
  Conjunction result;
  for (const Step& step : steps) {
    const uint32_t part = step.member.part;
    if (document_.schema(part).is_object() && !(document_.ref_stands_alone() && document_.find(part, "$ref"))) result.push_back(step.member);
  }
  return sorted(std::move(result));
}

bool SchemaCompiler::is_plainly_never(const Conjunction& conjunction) {
  const std::optional<Conjunction> all = flattened(sorted(conjunction));
  if (!all) return true;
  const uint32_t types = types_of(*all);
  const std::optional<std::vector<Json>> values = values_of(*all);
  return types == 0 || (values && std::none_of(values->begin(), values->end(), [&](const Json& value) { return (type_of(value) & types) != 0; }));
}

NodeId SchemaCompiler::node_of(const Conjunction& conjunction) {
  const std::optional<Conjunction> all = flattened(conjunction);
  if (!all) return builder_.never();
  uint32_t types = types_of(*all);
  if (types == 0) return builder_.never();
  if (const std::optional<NodeId> node = branches(*all)) return *node;
  if (const std::optional<std::vector<Json>> values = values_of(*all)) {
    uint32_t value_types = 0;
    for (const Json& value : *values) value_types |= type_of(value);
    types &= value_types;
    if (!lenient_) refuse_unenforced(*all, types);
    return one_of_values(*all, types, *values);
  }
  if (!lenient_) refuse_unenforced(*all, types);
  std::vector<NodeId> parts;
  if (types & object_type) parts.push_back(object_node(*all));
  if (types & array_type) parts.push_back(array_node(*all));
  if (types & string_type) parts.push_back(string_node(*all));
  if (types & (integer_type | fraction_type)) parts.push_back(number_node(*all, !(types & fraction_type)));
  if (types & boolean_type) parts.push_back(builder_.alternatives({builder_.literal("true"), builder_.literal("false")}));
  if (types & null_type) parts.push_back(builder_.literal("null"));
  return builder_.alternatives(std::move(parts));
}

// The first anyOf or oneOf that is not taken care of, branch by branch.
std::optional<NodeId> SchemaCompiler::branches(const Conjunction& all) {
  for (size_t i = 0; i < all.size(); ++i) {
    for (const auto& [keyword, done] : {std::pair{"anyOf", kAnyOfDone}, std::pair{"oneOf", kOneOfDone}}) {
      const uint32_t part = all[i].part;
      if (all[i].done & done) continue;
      const Json* list = document_.list(part, keyword, false);
      if (!list) continue;
      Conjunction rest = all;
      rest[i].done |= done;
      std::vector<Member> choices;
      for (size_t j = 0; j < list->size(); ++j) choices.push_back(member((*list)[j], part, fmt::format("{}/{}", keyword, j)));
      if (done == kOneOfDone && !lenient_) check_disjoint(rest, part, choices);
      std::vector<NodeId> parts;
      for (const Member& choice : choices) {
        refuse_way_back(choice, rest);
        Conjunction with = rest;
        with.push_back(choice);
        parts.push_back(reach(std::move(with)));
      }
      return builder_.alternatives(std::move(parts));
    }
  }
  return std::nullopt;
}

// A branch that asks for a schema whose branch is being chosen would ask for it for ever.
void SchemaCompiler::refuse_way_back(const Member& choice, const Conjunction& all) {
  std::vector<uint32_t> reached = {choice.part};
  for (size_t i = 0; i < reached.size(); ++i) {
    const uint32_t part = reached[i];
    if (!document_.schema(part).is_object()) continue;
    const auto reach_part = [&](uint32_t next, const char* keyword) {
      if (std::ranges::any_of(all, [&](const Member& member) { return member.part == next && (member.done & (kAnyOfDone | kOneOfDone)); }))
        document_.fail_at(part, keyword, ErrorKind::unsupported, "leads back to a schema whose branch it is");
      if (std::ranges::find(reached, next) == reached.end()) reached.push_back(next);
    };
    if (document_.find(part, "$ref")) reach_part(document_.resolve(part), "$ref");
    const Json* const list = document_.list(part, "allOf", false);
    for (size_t j = 0; list && j < list->size(); ++j) reach_part(document_.part((*list)[j], part, fmt::format("allOf/{}", j)), "allOf");
  }
}

// oneOf is anyOf where no value satisfies two branches.
void SchemaCompiler::check_disjoint(const Conjunction& all, uint32_t part, const std::vector<Member>& choices) {
  constexpr size_t kMaxBranches = 40;
  if (choices.size() > kMaxBranches) document_.fail_at(part, "oneOf", ErrorKind::unsupported, "more than {} branches; anyOf has no such limit", kMaxBranches);
  for (size_t i = 0; i < choices.size(); ++i) {
    for (size_t j = i + 1; j < choices.size(); ++j) {
      Conjunction both = all;
      both.push_back(choices[i]);
      both.push_back(choices[j]);
      bool possible = true;
      try {
        Builder builder;
        SchemaCompiler compiler(document_, shared_, builder, true);
        possible = builder.accepts_anything(compiler.compile(std::move(both)));
      } catch (const Error&) {
        possible = true;  // a fault is reported where the branch itself is compiled
      }
      if (possible) {
        document_.fail_at(part, "oneOf", ErrorKind::unsupported,
                          "branches {} and {} do not exclude each other (a const or the types must differ); if they may overlap, write anyOf", i, j);
      }
    }
  }
}

uint32_t SchemaCompiler::type_of(const Json& value) {
  switch (value.type()) {
    case Json::value_t::null: return null_type;
    case Json::value_t::boolean: return boolean_type;
    case Json::value_t::string: return string_type;
    case Json::value_t::array: return array_type;
    case Json::value_t::object: return object_type;
    case Json::value_t::number_float: return std::nearbyint(value.get<double>()) == value.get<double>() ? integer_type : fraction_type;
    default: return integer_type;
  }
}

uint32_t SchemaCompiler::types_of(const Conjunction& all) const {
  static const std::map<std::string, uint32_t, std::less<>> kNames = {
      {"null", null_type},     {"boolean", boolean_type}, {"integer", integer_type}, {"number", integer_type | fraction_type},
      {"string", string_type}, {"array", array_type},     {"object", object_type},
  };
  uint32_t types = all_types;
  for (const Member& member : all) {
    const Json* type = document_.find(member.part, "type");
    if (!type) continue;
    uint32_t own = 0;
    const auto add = [&](const Json& name) {
      const auto it = name.is_string() ? kNames.find(name.get_ref<const std::string&>()) : kNames.end();
      if (it == kNames.end()) document_.fail_at(member.part, "type", ErrorKind::invalid_input, "{} is no type of JSON", printable(name.dump()));
      own |= it->second;
    };
    if (type->is_array()) {
      if (type->empty()) document_.fail_at(member.part, "type", ErrorKind::invalid_input, "an empty list");
      for (const Json& name : *type) add(name);
    } else {
      add(*type);
    }
    types &= own;
  }
  return types;
}

namespace {

// 1.0 is 1, everywhere in the value.
Json canonical(const Json& value) {
  if (value.is_number_float()) {
    const double number = value.get<double>();
    if (std::nearbyint(number) == number && std::abs(number) < 9e15) return static_cast<int64_t>(number);
  }
  if (!value.is_structured()) return value;
  Json result = value.is_object() ? Json::object() : Json::array();
  for (const auto& [key, member] : value.items()) {
    if (value.is_object()) {
      result[key] = canonical(member);
    } else {
      result.push_back(canonical(member));
    }
  }
  return result;
}

}  // namespace

// What enum and const leave, if there is one.
std::optional<std::vector<Json>> SchemaCompiler::values_of(const Conjunction& all) const {
  std::optional<std::vector<Json>> result;
  const auto keep = [&](const std::vector<Json>& values) {
    if (!result) {
      result = values;
      return;
    }
    std::set<std::string> known;
    for (const Json& value : values) known.insert(nlohmann::json(value).dump());
    std::erase_if(*result, [&](const Json& value) { return !known.contains(nlohmann::json(value).dump()); });
  };
  for (const Member& member : all) {
    if (member.done & kValuesDone) continue;
    if (const Json* list = document_.list(member.part, "enum", false)) {
      std::vector<Json> values;
      for (const Json& value : *list) values.push_back(canonical(value));
      keep(values);
    }
    if (const Json* value = document_.find(member.part, "const")) keep({canonical(*value)});
  }
  return result;
}

// Whether a value of the right type could still be wrong.
bool SchemaCompiler::has_more_rules(const Conjunction& all) const {
  static const std::set<std::string, std::less<>> kHarmless = {"type",     "enum",     "const",    "title",      "description", "default", "example",
                                                               "examples", "$comment", "readOnly", "deprecated", "writeOnly",   "$defs",   "definitions",
                                                               "$schema",  "$ref",     "allOf",    "anyOf",      "oneOf"};
  return std::any_of(all.begin(), all.end(), [&](const Member& member) {
    const Json& schema = document_.schema(member.part);
    return std::any_of(schema.items().begin(), schema.items().end(), [](const auto& item) { return !kHarmless.contains(item.key()); });
  });
}

NodeId SchemaCompiler::one_of_values(const Conjunction& all, uint32_t types, const std::vector<Json>& values) {
  std::optional<Program> program;
  std::optional<Machine> machine;
  const bool more = has_more_rules(all);
  if (more) {
    Conjunction rest = all;
    for (Member& member : rest) member.done |= kValuesDone;
    Builder builder;
    SchemaCompiler compiler(document_, shared_, builder, lenient_);
    const NodeId root = compiler.compile(std::move(rest));
    if (!builder.accepts_anything(root)) return builder_.never();
    program = builder.finish(root);
    machine.emplace(*program);
  }
  std::vector<std::string> texts;
  std::vector<NodeId> parts;
  std::set<std::string> seen;
  for (const Json& value : values) {
    const std::string text = value.dump();
    if (!(type_of(value) & types) || !seen.insert(text).second) continue;
    if (more) {
      machine->begin_work();
      StateId state = machine->start();
      for (const char c : text) state = machine->step(state, static_cast<uint8_t>(c));
      if (!machine->has_end(state)) {
        if (value.is_structured() && !lenient_)
          fail(ErrorKind::unsupported, "{}/enum: lists and objects under further rules", printable(document_.pointer(all[0].part), 400));
        continue;
      }
    }
    if (value.is_structured()) {
      parts.push_back(json_.value(value));
    } else {
      texts.push_back(text);
    }
  }
  parts.push_back(builder_.choices(std::move(texts)));
  return builder_.alternatives(std::move(parts));
}

Program compile_schema(const Json& schema, Undeclared undeclared) {
  SchemaDocument document(schema);
  SchemaShared shared(undeclared);
  Builder builder;
  SchemaCompiler compiler(document, shared, builder, false);
  const NodeId root = compiler.compile({{document.root(), 0}});
  if (!builder.accepts_anything(root)) fail(ErrorKind::invalid_input, "schema: #: no value at all satisfies it");
  return builder.finish(root);
}

}  // namespace frugal::text::grammar
