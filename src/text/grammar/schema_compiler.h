// JSON Schema to a grammar. What is compiled is always a conjunction: the set of subschemas that one value must satisfy.
// $ref and allOf add to it, anyOf and oneOf branch, and what is left is split by type and joined keyword by keyword.
#pragma once

#include <map>
#include <memory>
#include <set>

#include "text/grammar/grammar.h"
#include "text/grammar/json_nodes.h"
#include "text/grammar/regex.h"
#include "text/grammar/schema_document.h"

namespace frugal::text::grammar {

// What all compilers of one schema share: its regular expressions, parsed once, a bound for their work together, and what it is for.
class SchemaShared {
 public:
  static constexpr size_t kMaxConjunctions = 5'000;
  explicit SchemaShared(Undeclared undeclared) : undeclared(undeclared) {}
  const Undeclared undeclared;

  const Regex& regex(std::string_view pattern, const std::string& what);
  void count_conjunction();

 private:
  std::map<std::string, std::unique_ptr<Regex>, std::less<>> regexes_;
  size_t conjunctions_ = 0;
};

class SchemaCompiler {
 public:
  // A lenient compiler leaves out what it cannot enforce: if even so nothing is accepted, then nothing is.
  SchemaCompiler(SchemaDocument& document, SchemaShared& shared, Builder& builder, bool lenient);

  // One subschema in a conjunction, and which of its keywords are taken care of.
  struct Member {
    uint32_t part;
    uint32_t done;
    friend auto operator<=>(const Member&, const Member&) = default;
  };
  static constexpr uint32_t kAnyOfDone = 1, kOneOfDone = 2, kValuesDone = 4;
  using Conjunction = std::vector<Member>;  // sorted

  NodeId compile(Conjunction conjunction);  // of everything reachable

 private:
  enum Type : uint32_t {
    null_type = 1,
    boolean_type = 2,
    integer_type = 4,
    fraction_type = 8,
    string_type = 16,
    array_type = 32,
    object_type = 64,
    all_types = 127
  };

  NodeId reach(Conjunction conjunction);
  NodeId node_of(const Conjunction& conjunction);
  std::optional<Conjunction> flattened(const Conjunction& conjunction);
  void check_keywords(uint32_t part);
  bool is_plainly_never(const Conjunction& conjunction);  // seen without compiling what is below

  // anyOf and oneOf
  std::optional<NodeId> branches(const Conjunction& all);
  void refuse_way_back(const Member& choice, const Conjunction& all);
  void check_disjoint(const Conjunction& all, uint32_t part, const std::vector<Member>& choices);

  // Types and values
  uint32_t types_of(const Conjunction& all) const;
  static uint32_t type_of(const Json& value);
  void refuse_unenforced(const Conjunction& all, uint32_t types);
  std::optional<std::vector<Json>> values_of(const Conjunction& all) const;
  NodeId one_of_values(const Conjunction& all, uint32_t types, const std::vector<Json>& values);
  bool has_more_rules(const Conjunction& all) const;

  // One type each
  NodeId number_node(const Conjunction& all, bool integer);
  void tighten(std::optional<DecimalBound>& bound, uint32_t part, const char* keyword, bool exclusive, bool is_min);
  NodeId string_node(const Conjunction& all);
  NodeId array_node(const Conjunction& all);
  NodeId object_node(const Conjunction& all);

  struct ObjectShape;
  void collect(const Conjunction& all, ObjectShape& shape);
  Conjunction rules_for_name(const ObjectShape& shape, const std::string& name);
  NodeId extra_pair(const ObjectShape& shape);
  NodeId members(const ObjectShape& shape);

  Member member(const Json& schema, uint32_t parent, const std::string& path) { return {document_.part(schema, parent, path), 0}; }
  static Conjunction sorted(Conjunction conjunction);

  SchemaDocument& document_;
  SchemaShared& shared_;
  Builder& builder_;
  JsonNodes json_;
  bool lenient_;
  std::map<Conjunction, NodeId> known_;
  std::vector<std::map<Conjunction, NodeId>::iterator> queue_;
  std::set<uint32_t> checked_;
};

Program compile_schema(const Json& schema, Undeclared undeclared);

}  // namespace frugal::text::grammar
