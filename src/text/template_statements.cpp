// Execution of statements, and the loop variable.
#include <algorithm>

#include "text/template_render.h"

namespace frugal::text::jinja {
namespace {

// The `loop` of a for statement. It lives on the stack of the loop; a recursive call goes back to the statement.
class Loop : public Object, public std::enable_shared_from_this<Loop> {
 public:
  Loop(const ForStmt& statement, std::vector<Value> items, int depth) : items(std::move(items)), statement_(statement), depth_(depth) {}

  std::string repr() const override { return fmt::format("<LoopContext {}/{}>", index + 1, items.size()); }
  bool callable() const override { return statement_.recursive; }

  Value call(Render& r, const Arguments& arguments) override {
    if (!statement_.recursive) template_error("The loop must have the 'recursive' marker to be called recursively");
    const Bound bound(arguments, "loop", {"iterable"});
    struct Again : Stmt {
      const ForStmt& statement;
      Value iterable;
      int depth;
      Again(const ForStmt& statement, Value iterable, int depth) : statement(statement), iterable(std::move(iterable)), depth(depth) {}
      Flow run(Render& r) const override { return statement.run_over(r, iterable, depth); }
    };
    Body body;
    body.push_back(std::make_unique<Again>(statement_, bound.required(0), depth_ + 1));
    return make_string(r, r.capture(body));
  }

  std::optional<Value> attribute(Render& r, std::string_view name) override {
    const auto size = static_cast<int64_t>(items.size()), at = static_cast<int64_t>(index);
    if (name == "index") return make_integer(at + 1);
    if (name == "index0") return make_integer(at);
    if (name == "revindex") return make_integer(size - at);
    if (name == "revindex0") return make_integer(size - at - 1);
    if (name == "first") return at == 0;
    if (name == "last") return at + 1 == size;
    if (name == "length") return make_integer(size);
    if (name == "depth") return make_integer(depth_ + 1);
    if (name == "depth0") return make_integer(depth_);
    if (name == "previtem") return at > 0 ? items[index - 1] : undefined("there is no previous item");
    if (name == "nextitem") return at + 1 < size ? items[index + 1] : undefined("there is no next item");
    if (name == "cycle" || name == "changed") {
      const Value self = std::shared_ptr<Object>(shared_from_this());
      return Value(std::shared_ptr<Object>(std::make_shared<Native>(std::string(name), name == "cycle" ? cycle : changed, self)));
    }
    return std::nullopt;
  }

  // At the end of the statement: what changed() remembers may hold this loop itself.
  void finish() { last_.reset(); }

  std::vector<Value> items;
  size_t index = 0;

 private:
  static Loop& of(const Value& self) { return static_cast<Loop&>(*self.object()); }
  static Value cycle(Render&, const Value& self, const Arguments& arguments) {
    if (arguments.positional.empty() || !arguments.named.empty()) template_error("loop.cycle() needs values to cycle through");
    return arguments.positional[of(self).index % arguments.positional.size()];
  }
  static Value changed(Render& r, const Value& self, const Arguments& arguments) {
    Loop& loop = of(self);
    const Value now = make_list(r, arguments.positional, ListKind::tuple);
    if (loop.last_ && equals(r, *loop.last_, now)) return false;
    loop.last_ = now;
    return true;
  }

  const ForStmt& statement_;
  int depth_;
  std::optional<Value> last_;
};

}  // namespace

void Target::assign(Render& r, const Value& value) const {
  if (is_tuple) {
    const std::vector<Value> values = iterate(r, value);
    if (value.is_undefined()) r.fail_undefined(value);
    if (values.size() != parts.size()) template_error("cannot unpack {} value(s) into {} names", values.size(), parts.size());
    for (size_t i = 0; i < parts.size(); ++i) parts[i].assign(r, values[i]);
    return;
  }
  if (attribute.empty()) return r.set(name, value);
  const Value holder = r.lookup(name);
  NamespaceData* space = holder.name_space();
  if (!space) template_error("cannot assign attribute on non-namespace object");
  if (attribute.starts_with('_')) template_error("a namespace cannot store the underscore-prefixed attribute '{}'", attribute);
  for (auto& [key, slot] : space->attributes) {
    r.budget.step();
    if (key != attribute) continue;
    slot = value;
    return;
  }
  space->attributes.emplace_back(attribute, value);
}

Flow DataStmt::run(Render& r) const {
  r.write_template(text);
  return Flow::next;
}

Flow PrintStmt::run(Render& r) const {
  for (const ExprPtr& value : values) r.write(to_text(r, r.eval(*value)));
  return Flow::next;
}

Flow IfStmt::run(Render& r) const {
  for (const auto& [condition, body] : branches) {
    if (truthy(r.eval(*condition))) return r.run_body(body);
  }
  return r.run_body(otherwise);
}

Flow ForStmt::run(Render& r) const { return run_over(r, r.eval(*iterable), 0); }

std::vector<Value> ForStmt::selected(Render& r, const Value& values) const {
  std::vector<Value> items = iterate(r, values);
  if (!condition) return items;
  std::vector<Value> kept;
  for (Value& item : items) {
    const ScopeGuard guard(r);
    r.set("loop", undefined("'loop' is undefined"));
    target.assign(r, item);
    if (truthy(r.eval(*condition))) kept.push_back(std::move(item));
  }
  return kept;
}

Flow ForStmt::run_over(Render& r, const Value& values, int loop_depth) const {
  std::vector<Value> items = selected(r, values);
  const size_t size = items.size();
  const auto loop = std::make_shared<Loop>(*this, std::move(items), loop_depth);
  struct Finish {
    Loop& loop;
    ~Finish() { loop.finish(); }
  } const finish{*loop};
  bool completed = false;  // Jinja's else runs unless some iteration reached the end of the body
  for (size_t i = 0; i < size; ++i) {
    r.budget.step();
    loop->index = i;
    const ScopeGuard guard(r);
    r.set("loop", Value(std::shared_ptr<Object>(loop)));
    target.assign(r, Value(loop->items[i]));
    const Flow flow = r.run_body(body);
    completed = completed || flow == Flow::next;
    if (flow == Flow::break_loop) break;
  }
  if (completed || otherwise.empty()) return Flow::next;
  const ScopeGuard guard(r);
  return r.run_body(otherwise);  // a break here belongs to the loop around
}

Flow SetStmt::run(Render& r) const {
  target.assign(r, r.eval(*value));
  return Flow::next;
}

Flow SetBlockStmt::run(Render& r) const {
  Value value = make_string(r, r.capture(body));
  if (filter) value = filter->apply(r, value);
  target.assign(r, value);
  return Flow::next;
}

Flow FilterBlockStmt::run(Render& r) const {
  const Value value = make_string(r, r.capture(body));
  r.write(to_text(r, filter->apply(r, value)));
  return Flow::next;
}

Flow WithStmt::run(Render& r) const {
  std::vector<Value> values;  // all are evaluated before any is visible
  for (const auto& assignment : assignments) values.push_back(r.eval(*assignment.second));
  const ScopeGuard guard(r);
  for (size_t i = 0; i < values.size(); ++i) assignments[i].first.assign(r, values[i]);
  return r.run_body(body);
}

Flow GenerationStmt::run(Render& r) const {
  Text text = r.capture(body);
  for (char& mark : text.marks) mark = static_cast<char>(mark | kGeneration);
  r.write(text);
  return Flow::next;
}

Flow FlowStmt::run(Render&) const { return flow; }

Flow MacroStmt::run(Render& r) const {
  r.set(macro.name, Value(std::shared_ptr<Object>(r.make_macro(macro))));
  return Flow::next;
}

Flow CallBlockStmt::run(Render& r) const {
  const Value body = std::shared_ptr<Object>(r.make_macro(caller));
  r.write(to_text(r, call->eval_with(r, &body)));
  return Flow::next;
}

}  // namespace frugal::text::jinja
