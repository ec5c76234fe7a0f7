#include "text/grammar/tool_grammar.h"

#include <deque>

#include "base/error.h"
#include "base/log.h"
#include "text/grammar/beginnings.h"
#include "text/grammar/json_nodes.h"
#include "text/grammar/schema_compiler.h"

namespace frugal::text {
namespace {

using namespace grammar;

// What the arguments of a tool must be, null for any object.
Json schema_of(const Json& parameters) {
  if (parameters.is_null()) return nullptr;
  Json schema = parameters;
  if (!schema.is_object()) fail(ErrorKind::invalid_input, "#: a schema must be an object");
  if (!schema.contains("type")) schema["type"] = "object";
  if (schema["type"] != "object") fail(ErrorKind::invalid_input, "#/type: the arguments of a function are an object");
  return schema;
}

class ToolGrammarBuilder {
 public:
  ToolGrammarBuilder(const ToolFormat& format, const std::vector<Tool>& tools, const ToolGrammarOptions& options)
      : format_(format), tools_(tools), options_(options), json_(builder_) {}

  Program run() {
    builder_.new_group();
    const NodeId calls = this->calls();
    if (options_.required) return builder_.finish(calls);
    if (options_.answer) return builder_.finish(builder_.alternatives({calls, answer()}));
    if (format_.open.empty()) return builder_.finish(builder_.alternatives({calls, text_that_is_no_call()}));
    return builder_.finish(builder_.sequence(text_without_open(), builder_.optional(calls)));
  }

 private:
  NodeId arguments(size_t index) {
    const Tool& tool = tools_[index];
    try {
      const Json schema = schema_of(tool.parameters);
      if (schema.is_null()) return json_.any_object();
      if (!tool.strict && !options_.required) compile_schema(schema, Undeclared::left_out);  // first by itself: what fails here leaves nothing behind
      schemas_.push_back(schema);
      documents_.emplace_back(schemas_.back());
      SchemaCompiler compiler(documents_.back(), shared_, builder_, false);
      const NodeId root = compiler.compile({{documents_.back().root(), 0}});
      if (!builder_.accepts_anything(root)) fail(ErrorKind::invalid_input, "#: no value at all satisfies it");
      return root;
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::unsupported && error.kind() != ErrorKind::invalid_input) throw;
      if (error.kind() == ErrorKind::invalid_input || tool.strict || options_.required)
        fail(error.kind(), "tools/{}/function/parameters: {}", index, error.what());
      log_info("the arguments of the function {} may be any JSON object: {}", tool.name, error.what());
      return json_.any_object();
    }
  }

  NodeId call() {
    std::vector<NodeId> all;
    for (size_t i = 0; i < tools_.size(); ++i) {
      const NodeId arguments = this->arguments(i);
      if (!format_.separator.empty()) {
        all.push_back(builder_.sequence({builder_.literal(tools_[i].name + std::string(format_.separator)), arguments}));
        continue;
      }
      const NodeId inside = builder_.sequence({json_.quoted("name"), json_.colon(), json_.quoted(tools_[i].name), json_.comma(),
                                               json_.quoted(format_.arguments), json_.colon(), arguments, json_.space()});
      all.push_back(json_.in_braces(inside));
    }
    return builder_.alternatives(std::move(all));
  }

  NodeId calls() {
    const NodeId one = call();
    const auto and_more = [&](NodeId first, NodeId between) {
      return options_.parallel ? builder_.sequence(first, builder_.repeat(builder_.sequence(between, first), 0, kUnlimited)) : first;
    };
    if (format_.open.empty()) return one;
    const NodeId open = builder_.sequence(builder_.literal(format_.open), json_.space());
    if (format_.list) return builder_.sequence(open, json_.in_brackets(and_more(builder_.sequence(one, json_.space()), json_.comma())));
    const NodeId close = format_.close.empty() ? builder_.empty() : builder_.sequence(json_.space(), builder_.literal(format_.close));
    return and_more(builder_.sequence({open, one, close}), json_.space());
  }

  NodeId answer() {
    const NodeId answer = texts_without_beginnings(builder_, options_.answer->program(), beginnings_of_calls());
    if (!builder_.accepts_anything(answer)) fail(ErrorKind::invalid_input, "every answer in the form that is asked for begins as a call does");
    return answer;
  }

  // Where the parser begins to read a call.
  Program beginnings_of_calls() const {
    Builder builder;
    builder.new_group();
    const NodeId space = builder.repeat(builder.bytes(space_bytes()), 0, kUnlimited);
    if (!format_.open.empty()) return builder.finish(builder.sequence(space, builder.literal(format_.open)));
    std::vector<std::string> names;
    for (const Tool& tool : tools_) names.push_back('"' + tool.name + '"');
    std::vector<NodeId> parts = {space};
    for (const NodeId token : {builder.byte('{'), builder.literal("\"name\""), builder.byte(':'), builder.choices(names), builder.byte(','),
                               builder.choices({"\"arguments\"", "\"parameters\""}), builder.byte(':'), builder.byte('{')})
      parts.insert(parts.end(), {token, space});
    parts.pop_back();
    return builder.finish(builder.sequence(parts));
  }

  NodeId others(const std::string& but) {
    CharSet set;
    for (const char c : but) set.add(static_cast<uint8_t>(c), static_cast<uint8_t>(c));
    return builder_.character(set.complement());
  }
  NodeId any_text() { return builder_.repeat(builder_.character(CharSet::all()), 0, kUnlimited); }

  // As the automaton of Knuth, Morris and Pratt: state i has seen the first i characters of the mark.
  NodeId text_without_open() {
    const std::string_view mark = format_.open;  // ASCII
    std::vector<NodeId> states;
    for (size_t i = 0; i < mark.size(); ++i) states.push_back(builder_.reference());
    for (size_t i = 0; i < mark.size(); ++i) {
      const std::string seen(mark.substr(0, i));
      std::vector<NodeId> ways = {builder_.empty()};
      std::string named;
      for (const char c : mark) {
        if (named.find(c) != std::string::npos) continue;
        named += c;
        const std::string now = seen + c;
        size_t length = std::min(now.size(), mark.size());
        while (length > 0 && !now.ends_with(mark.substr(0, length))) --length;
        if (length < mark.size()) ways.push_back(builder_.sequence(builder_.byte(c), states[length]));
      }
      ways.push_back(builder_.sequence(others(named), states[0]));
      builder_.set_target(states[i], builder_.alternatives(std::move(ways)));
    }
    return states[0];
  }

  // Text that does not begin as a call does, with {"name":
  NodeId text_that_is_no_call() {
    const std::string mark = "{\"name\":";
    const NodeId space = builder_.bytes(space_bytes());
    const NodeId spaces = builder_.repeat(space, 0, kUnlimited);
    NodeId rest = builder_.never();
    for (size_t i = mark.size(); i-- > 0;) {
      const bool may_have_space = i == 0 || i == 1 || i + 1 == mark.size();
      const NodeId other = builder_.sequence(others(std::string(1, mark[i]) + (may_have_space ? " \t\r\n" : "")), any_text());
      const NodeId here = builder_.alternatives({builder_.empty(), other, builder_.sequence(builder_.byte(mark[i]), rest)});
      rest = may_have_space ? builder_.sequence(spaces, here) : here;
    }
    return rest;
  }
  static ByteSet space_bytes() {
    ByteSet set;
    for (const char c : std::string_view(" \t\r\n")) set.set(static_cast<uint8_t>(c));
    return set;
  }

  const ToolFormat& format_;
  const std::vector<Tool>& tools_;
  ToolGrammarOptions options_;
  Builder builder_;
  JsonNodes json_;
  SchemaShared shared_{Undeclared::left_out};
  std::deque<Json> schemas_;
  std::deque<SchemaDocument> documents_;
};

}  // namespace

std::shared_ptr<const Grammar> tool_grammar(const ToolFormat& format, const std::vector<Tool>& tools, const ToolGrammarOptions& options) {
  return std::make_shared<const Grammar>(ToolGrammarBuilder(format, tools, options).run());
}

}  // namespace frugal::text
