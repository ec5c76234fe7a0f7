// The tree of a parsed template. Each node knows how to evaluate or run itself on a Render; the trees are shallow by
// construction (the parser counts depth), so plain recursion is safe.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "text/template_value.h"

namespace frugal::text::jinja {

struct Expr {
  int line = 1;
  int depth = 1;  // 1 + that of the deepest child
  virtual ~Expr() = default;
  virtual Value eval(Render& r) const = 0;
};
using ExprPtr = std::unique_ptr<Expr>;

enum class Flow { next, break_loop, continue_loop };

struct Stmt {
  int line = 1;
  virtual ~Stmt() = default;
  virtual Flow run(Render& r) const = 0;
};
using Body = std::vector<std::unique_ptr<Stmt>>;

// Expressions

struct ConstExpr : Expr {
  Value value;
  Value eval(Render&) const override { return value; }
};
struct NameExpr : Expr {
  std::string name;
  Value eval(Render& r) const override;
};
struct ListExpr : Expr {
  std::vector<ExprPtr> items;
  ListKind kind = ListKind::list;
  Value eval(Render& r) const override;
};
struct DictExpr : Expr {
  std::vector<std::pair<ExprPtr, ExprPtr>> items;
  Value eval(Render& r) const override;
};
struct AttributeExpr : Expr {  // object.name
  ExprPtr object;
  std::string name;
  Value eval(Render& r) const override;
};
struct ItemExpr : Expr {  // object[key]
  ExprPtr object, key;
  Value eval(Render& r) const override;
};
struct SliceExpr : Expr {  // object[start:stop:step], each may be null
  ExprPtr object, start, stop, step;
  Value eval(Render& r) const override;
};

struct CallArguments {
  std::vector<ExprPtr> positional;
  std::vector<std::pair<std::string, ExprPtr>> named;
  ExprPtr more_positional, more_named;  // *args, **kwargs
  Arguments eval(Render& r) const;
};
struct CallExpr : Expr {
  ExprPtr callee;
  CallArguments arguments;
  Value eval(Render& r) const override;
  Value eval_with(Render& r, const Value* caller) const;  // caller: the body of a call block
};

using FilterFunction = Value (*)(Render&, const Value&, const Arguments&);
using TestFunction = bool (*)(Render&, const Value&, const Arguments&);

struct FilterExpr : Expr {
  ExprPtr input;  // null: what the filter or set block captured
  std::string name;
  FilterFunction function = nullptr;  // null: unknown, an error when reached
  CallArguments arguments;
  Value eval(Render& r) const override;
  Value apply(Render& r, const Value& captured) const;
};
struct TestExpr : Expr {
  ExprPtr input;
  std::string name;
  TestFunction function = nullptr;
  CallArguments arguments;
  Value eval(Render& r) const override;
};

enum class UnaryOp { negate, plus, logical_not };
struct UnaryExpr : Expr {
  UnaryOp op;
  ExprPtr operand;
  Value eval(Render& r) const override;
};
enum class BinaryOp { add, subtract, multiply, divide, floor_divide, modulo, power, logical_and, logical_or };
struct BinaryExpr : Expr {
  BinaryOp op;
  ExprPtr left, right;
  Value eval(Render& r) const override;
};
struct ConcatExpr : Expr {  // a ~ b ~ c
  std::vector<ExprPtr> parts;
  Value eval(Render& r) const override;
};
enum class CompareOp { equal, not_equal, less, less_equal, greater, greater_equal, in, not_in };
struct CompareExpr : Expr {  // a < b < c
  ExprPtr first;
  std::vector<std::pair<CompareOp, ExprPtr>> rest;
  Value eval(Render& r) const override;
};
struct ConditionalExpr : Expr {  // yes if condition else no
  ExprPtr condition, yes, no;    // no may be null: undefined
  Value eval(Render& r) const override;
};

// What an assignment stores to: a name, attribute of a namespace, or a tuple of names.
struct Target {
  std::string name;
  std::string attribute;      // not empty: namespace attribute
  std::vector<Target> parts;  // not empty (or is_tuple): unpack
  bool is_tuple = false;
  void assign(Render& r, const Value& value) const;
};

// Statements

struct DataStmt : Stmt {
  std::string text;
  Flow run(Render& r) const override;
};
struct PrintStmt : Stmt {
  std::vector<ExprPtr> values;
  Flow run(Render& r) const override;
};
struct IfStmt : Stmt {
  std::vector<std::pair<ExprPtr, Body>> branches;
  Body otherwise;
  Flow run(Render& r) const override;
};
struct ForStmt : Stmt {
  Target target;
  ExprPtr iterable, condition;  // condition may be null
  bool recursive = false;
  Body body, otherwise;
  Flow run(Render& r) const override;
  Flow run_over(Render& r, const Value& iterable, int loop_depth) const;

 private:
  std::vector<Value> selected(Render& r, const Value& iterable) const;
};
struct SetStmt : Stmt {
  Target target;
  ExprPtr value;
  Flow run(Render& r) const override;
};
struct SetBlockStmt : Stmt {
  Target target;
  std::unique_ptr<FilterExpr> filter;  // null: none
  Body body;
  Flow run(Render& r) const override;
};
struct FilterBlockStmt : Stmt {
  std::unique_ptr<FilterExpr> filter;
  Body body;
  Flow run(Render& r) const override;
};
struct WithStmt : Stmt {
  std::vector<std::pair<Target, ExprPtr>> assignments;
  Body body;
  Flow run(Render& r) const override;
};
struct GenerationStmt : Stmt {
  Body body;
  Flow run(Render& r) const override;
};
struct FlowStmt : Stmt {
  Flow flow;
  Flow run(Render& r) const override;
};

// Parameters and body of a macro or a call block.
struct MacroSpec {
  std::string name;
  std::vector<std::pair<std::string, ExprPtr>> parameters;  // default may be null
  Body body;
  bool takes_more_positional = false, takes_more_named = false, takes_caller = false;  // the body reads varargs, kwargs, caller
};
struct MacroStmt : Stmt {
  MacroSpec macro;
  Flow run(Render& r) const override;
};
struct CallBlockStmt : Stmt {
  MacroSpec caller;
  std::unique_ptr<CallExpr> call;
  Flow run(Render& r) const override;
};

struct TemplateProgram {
  std::string name, source;
  Body body;
  std::set<std::string> names_read;  // before the template sets them itself
};

// Throws as ChatTemplate's constructor does.
TemplateProgram parse_template(std::string_view source, std::string name);

FilterFunction find_filter(std::string_view name);  // nullptr when unknown
TestFunction find_test(std::string_view name);

// Subscripts as Jinja does them: attribute first (obj.name) or item first (obj[key]); undefined when neither is there.
Value get_attribute(Render& r, const Value& object, const std::string& name);
Value get_item(Render& r, const Value& object, const Value& key);
Value get_slice(Render& r, const Value& object, const Value& start, const Value& stop, const Value& step);
Value apply_binary(Render& r, BinaryOp op, const Value& a, const Value& b);  // arithmetic only
bool apply_compare(Render& r, CompareOp op, const Value& a, const Value& b);
Value call_value(Render& r, const Value& callee, const Arguments& arguments);

}  // namespace frugal::text::jinja
