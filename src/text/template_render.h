// The state of one render: budget, scopes, output, where we are.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/template_ast.h"

namespace frugal::text::jinja {

struct Scope {
  std::shared_ptr<Scope> parent;
  int depth = 0;
  std::vector<std::pair<std::string, Value>> variables;

  Value* find_here(std::string_view name);
  void set(std::string_view name, Value value);
};

// A macro, with the scope that it was defined in.
class Macro : public Object {
 public:
  Macro(const MacroSpec& spec, std::shared_ptr<Scope> scope) : spec_(spec), scope_(std::move(scope)) {}
  std::string repr() const override { return fmt::format("<Macro {}>", spec_.name.empty() ? "anonymous" : "'" + spec_.name + "'"); }
  Value call(Render& r, const Arguments& arguments) override;
  std::optional<Value> attribute(Render& r, std::string_view name) override;

 private:
  void bind(Render& r, const Arguments& arguments) const;  // into the current scope
  const MacroSpec& spec_;
  std::shared_ptr<Scope> scope_;
};

// A function of C++: global, or method with its object in `self`.
using NativeFunction = Value (*)(Render&, const Value& self, const Arguments&);
class Native : public Object {
 public:
  Native(std::string name, NativeFunction function, Value self = None{}) : name_(std::move(name)), function_(function), self_(std::move(self)) {}
  std::string repr() const override { return fmt::format("<function {}>", name_); }
  Value call(Render& r, const Arguments& arguments) override { return function_(r, self_, arguments); }

 private:
  std::string name_;
  NativeFunction function_;
  Value self_;
};

class Render {
 public:
  // Deepest nesting of nodes while running: macros in expressions in statements. About 400 bytes of stack each.
  static constexpr int kMaxDepth = 1500;
  static constexpr int kMaxMacroDepth = 64;
  static constexpr int kMaxScopeDepth = 256;

  Render(const TemplateProgram& program, const RenderOptions& options);
  ~Render();
  Render(const Render&) = delete;
  Render& operator=(const Render&) = delete;

  std::vector<RenderedSegment> run(const Json& messages);

  Value eval(const Expr& expr);
  Flow run_body(const Body& body);
  Text capture(const Body& body);  // output of the body, in a scope of its own
  void write(const Text& text);
  void write_template(std::string_view text);

  Value lookup(std::string_view name) const;
  void set(std::string_view name, Value value) { scope->set(name, std::move(value)); }
  [[noreturn]] void fail_undefined(const Value& value) const;

  std::shared_ptr<Macro> make_macro(const MacroSpec& spec);
  std::shared_ptr<NamespaceData> make_namespace();
  const Clock& clock() const { return *clock_; }

  Budget budget;
  std::shared_ptr<Scope> scope;
  int macro_depth = 0;
  int line = 1;

 private:
  const TemplateProgram& program_;
  const RenderOptions& options_;
  const Clock* clock_;
  Text output_;
  Text* out_ = &output_;
  int depth_ = 0;
  // Everything that may be part of a cycle; emptied at the end.
  std::vector<std::shared_ptr<Scope>> captured_scopes_;
  std::vector<std::shared_ptr<NamespaceData>> namespaces_;
};

// Enters a child of `parent` for as long as it lives.
class ScopeGuard {
 public:
  ScopeGuard(Render& r, std::shared_ptr<Scope> parent);
  explicit ScopeGuard(Render& r) : ScopeGuard(r, r.scope) {}
  ~ScopeGuard() { r_.scope = std::move(before_); }
  ScopeGuard(const ScopeGuard&) = delete;
  ScopeGuard& operator=(const ScopeGuard&) = delete;

 private:
  Render& r_;
  std::shared_ptr<Scope> before_;
};

// Arguments of a filter, test or method by name or position, as Python binds them. Throws for too many, unknown or
// doubled ones. Absent ones are null; required() throws for them.
class Bound {
 public:
  Bound(const Arguments& arguments, std::string_view function, std::initializer_list<std::string_view> names);
  const Value* operator[](size_t index) const { return values_[index]; }
  const Value& required(size_t index) const;
  bool flag(size_t index, bool fallback) const { return values_[index] ? truthy(*values_[index]) : fallback; }
  int64_t integer(size_t index, int64_t fallback) const;
  const Text& text(size_t index) const;                  // required, must be a string
  const std::string* bytes_or_none(size_t index) const;  // null when absent or none; must be a string

 private:
  std::string function_;
  std::vector<std::string_view> names_;
  std::vector<const Value*> values_;
};

void install_globals(Render& r);                                         // raise_exception, strftime_now, namespace, range, dict
NativeFunction find_method(const Value& object, std::string_view name);  // of str, list or dict; nullptr when none
bool is_mutating_method(const Value& object, std::string_view name);     // exists in Python, refused by the sandbox
Text format_percent(Render& r, const Text& format, const Value& values);
Text format_braces(Render& r, const Text& format, const Arguments& arguments);
std::string format_time(Render& r, const std::string& format, int64_t unix_time);

}  // namespace frugal::text::jinja
