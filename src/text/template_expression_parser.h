// Jinja's expressions by recursive descent. Nesting is counted before every recursion and the depth of every tree when it
// is built, so that neither parsing, nor evaluation, nor destruction can exhaust the stack. Included by
// template_parser.cpp only, which adds the statements.
#pragma once

#include <algorithm>
#include <array>
#include <utility>

#include "text/template_ast.h"
#include "text/template_lexer.h"
#include "text/template_text.h"

namespace frugal::text::jinja {

constexpr int kMaxNesting = 64;     // brackets in brackets, statements in statements
constexpr int kMaxExprDepth = 250;  // a + b + c + ... is a tree as deep as it is long

using Names = std::set<std::string>;

class ExpressionParser {
 protected:
  ExpressionParser(std::string_view source, TemplateProgram& program) : tokens_(tokenize_template(source)), program_(program) {}

  // Tokens

  const Token& current() const { return tokens_[at_]; }
  const Token& look() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  Token take() {
    Token token = current();
    if (token.kind != TokenKind::end) ++at_;
    return token;
  }
  bool skip_name(std::string_view name) {
    if (!current().is_name(name)) return false;
    take();
    return true;
  }
  bool skip_op(std::string_view op) {
    if (!current().is_op(op)) return false;
    take();
    return true;
  }
  void expect_op(std::string_view op) {
    if (!skip_op(op)) error(fmt::format("expected '{}'", op));
  }
  void expect(TokenKind kind, std::string_view what) {
    if (current().kind != kind) error(fmt::format("expected {}", what));
    take();
  }
  std::string expect_name() {
    if (current().kind != TokenKind::name) error("expected a name");
    return take().text;
  }
  [[noreturn]] void error(std::string_view what) const {
    const Token& token = current();
    const std::string got = token.kind == TokenKind::end ? "end of template" : token.text.empty() ? "end of tag" : printable(token.text, 40);
    fail(ErrorKind::invalid_input, "{}: line {}: {}, got '{}'", program_.name, token.line, what, got);
  }

  struct Nest {
    explicit Nest(ExpressionParser& parser) : parser(parser) {
      if (++parser.nesting_ > kMaxNesting) {
        --parser.nesting_;
        parser.error(fmt::format("nesting deeper than {}", kMaxNesting));
      }
    }
    ~Nest() { --parser.nesting_; }
    ExpressionParser& parser;
  };

  // A finished node: its line, and its depth from its children.
  template <typename Node>
  std::unique_ptr<Node> finish(std::unique_ptr<Node> node, int line, std::initializer_list<const Expr*> children) {
    node->line = line;
    for (const Expr* child : children) deepen(*node, child);
    return node;
  }
  void deepen(Expr& node, const Expr* child) {
    if (child) node.depth = std::max(node.depth, child->depth + 1);
    if (node.depth > kMaxExprDepth) error(fmt::format("expression deeper than {}", kMaxExprDepth));
  }
  void deepen(Expr& node, const CallArguments& arguments) {
    for (const ExprPtr& expr : arguments.positional) deepen(node, expr.get());
    for (const auto& entry : arguments.named) deepen(node, entry.second.get());
    deepen(node, arguments.more_positional.get());
    deepen(node, arguments.more_named.get());
  }

  // Expressions, weakest binding first

  ExprPtr expression(bool with_condition = true) {
    const Nest nest(*this);
    return with_condition ? conditional() : logical_or();
  }

  ExprPtr conditional() {
    ExprPtr left = logical_or();
    while (current().is_name("if")) {
      const int line = take().line;
      auto node = std::make_unique<ConditionalExpr>();
      node->condition = logical_or();
      if (skip_name("else")) node->no = expression();
      node->yes = std::move(left);
      const Expr *a = node->condition.get(), *b = node->yes.get(), *c = node->no.get();
      left = finish(std::move(node), line, {a, b, c});
    }
    return left;
  }

  ExprPtr binary(BinaryOp op, ExprPtr left, ExprPtr right, int line) {
    auto node = std::make_unique<BinaryExpr>();
    node->op = op;
    const Expr *a = left.get(), *b = right.get();
    node->left = std::move(left);
    node->right = std::move(right);
    return finish(std::move(node), line, {a, b});
  }

  ExprPtr logical_or() {
    ExprPtr left = logical_and();
    while (current().is_name("or")) {
      const int line = take().line;
      left = binary(BinaryOp::logical_or, std::move(left), logical_and(), line);
    }
    return left;
  }
  ExprPtr logical_and() {
    ExprPtr left = logical_not();
    while (current().is_name("and")) {
      const int line = take().line;
      left = binary(BinaryOp::logical_and, std::move(left), logical_not(), line);
    }
    return left;
  }
  ExprPtr unary(UnaryOp op, ExprPtr operand, int line) {
    auto node = std::make_unique<UnaryExpr>();
    node->op = op;
    const Expr* child = operand.get();
    node->operand = std::move(operand);
    return finish(std::move(node), line, {child});
  }
  ExprPtr logical_not() {
    if (!current().is_name("not")) return comparison();
    const Nest nest(*this);
    const int line = take().line;
    return unary(UnaryOp::logical_not, logical_not(), line);
  }

  std::optional<CompareOp> compare_op() {
    static constexpr std::array<std::pair<std::string_view, CompareOp>, 6> kOps = {{{"==", CompareOp::equal},
                                                                                    {"!=", CompareOp::not_equal},
                                                                                    {"<", CompareOp::less},
                                                                                    {"<=", CompareOp::less_equal},
                                                                                    {">", CompareOp::greater},
                                                                                    {">=", CompareOp::greater_equal}}};
    for (const auto& [text, op] : kOps) {
      if (skip_op(text)) return op;
    }
    if (skip_name("in")) return CompareOp::in;
    if (!current().is_name("not") || !look().is_name("in")) return std::nullopt;
    take();
    take();
    return CompareOp::not_in;
  }
  ExprPtr comparison() {
    const int line = current().line;
    ExprPtr first = sum();
    std::unique_ptr<CompareExpr> node;
    while (const auto op = compare_op()) {
      if (!node) node = std::make_unique<CompareExpr>();
      node->rest.emplace_back(*op, sum());
      deepen(*node, node->rest.back().second.get());
    }
    if (!node) return first;
    node->first = std::move(first);
    const Expr* child = node->first.get();
    return finish(std::move(node), line, {child});
  }

  ExprPtr sum() {
    ExprPtr left = concatenation();
    while (current().is_op("+") || current().is_op("-")) {
      const Token op = take();
      left = binary(op.text == "+" ? BinaryOp::add : BinaryOp::subtract, std::move(left), concatenation(), op.line);
    }
    return left;
  }
  ExprPtr concatenation() {
    ExprPtr first = product();
    if (!current().is_op("~")) return first;
    auto node = std::make_unique<ConcatExpr>();
    node->line = current().line;
    deepen(*node, first.get());
    node->parts.push_back(std::move(first));
    while (skip_op("~")) {
      node->parts.push_back(product());
      deepen(*node, node->parts.back().get());
    }
    return node;
  }
  ExprPtr product() {
    ExprPtr left = power();
    for (;;) {
      const Token& token = current();
      BinaryOp op;
      if (token.is_op("*"))
        op = BinaryOp::multiply;
      else if (token.is_op("/"))
        op = BinaryOp::divide;
      else if (token.is_op("//"))
        op = BinaryOp::floor_divide;
      else if (token.is_op("%"))
        op = BinaryOp::modulo;
      else
        return left;
      const int line = take().line;
      left = binary(op, std::move(left), power(), line);
    }
  }
  ExprPtr power() {
    ExprPtr left = signed_value();
    while (current().is_op("**")) {
      const int line = take().line;
      left = binary(BinaryOp::power, std::move(left), signed_value(), line);
    }
    return left;
  }
  ExprPtr signed_value(bool with_filter = true) {
    ExprPtr node;
    if (current().is_op("-") || current().is_op("+")) {
      const Nest nest(*this);
      const Token sign = take();
      node = unary(sign.text == "-" ? UnaryOp::negate : UnaryOp::plus, signed_value(false), sign.line);
    } else {
      node = primary();
    }
    node = postfix(std::move(node));
    return with_filter ? filters_and_tests(std::move(node)) : std::move(node);
  }

  ExprPtr constant(Value value, int line) {
    auto node = std::make_unique<ConstExpr>();
    node->value = std::move(value);
    node->line = line;
    return node;
  }

  ExprPtr primary() {
    const Token token = current();
    if (token.kind == TokenKind::name) {
      take();
      if (token.text == "true" || token.text == "True") return constant(true, token.line);
      if (token.text == "false" || token.text == "False") return constant(false, token.line);
      if (token.text == "none" || token.text == "None") return constant(None{}, token.line);
      note_read(token.text);
      auto node = std::make_unique<NameExpr>();
      node->name = token.text;
      node->line = token.line;
      return node;
    }
    if (token.kind == TokenKind::string) {
      std::string text;
      while (current().kind == TokenKind::string) text += take().text;
      return constant(std::shared_ptr<const StringData>(new StringData{Text(text), {}}), token.line);
    }
    if (token.kind == TokenKind::integer || token.kind == TokenKind::real) {
      take();
      return constant(token.kind == TokenKind::integer ? Value(token.integer) : Value(token.real), token.line);
    }
    if (skip_op("(")) {
      ExprPtr node = tuple({.parenthesized = true});
      expect_op(")");
      return node;
    }
    if (current().is_op("[")) return list();
    if (current().is_op("{")) return dictionary();
    error("unexpected token");
  }

  struct TupleOptions {
    bool with_condition = true;
    bool parenthesized = false;
    std::string_view end_name = {};  // also ends the tuple
  };
  bool at_tuple_end(std::string_view end_name) const {
    const TokenKind kind = current().kind;
    return kind == TokenKind::variable_end || kind == TokenKind::block_end || current().is_op(")") || (!end_name.empty() && current().is_name(end_name));
  }
  // An expression, or a tuple when there is a comma.
  ExprPtr tuple(const TupleOptions& options) {
    auto node = std::make_unique<ListExpr>();
    node->kind = ListKind::tuple;
    node->line = current().line;
    bool is_tuple = false;
    while (!at_tuple_end(options.end_name)) {
      node->items.push_back(expression(options.with_condition));
      deepen(*node, node->items.back().get());
      if (!current().is_op(",")) break;
      is_tuple = true;
      take();
    }
    if (!is_tuple && !node->items.empty()) return std::move(node->items.front());
    if (!is_tuple && !options.parenthesized) error("expected an expression");
    return node;
  }

  ExprPtr list() {
    auto node = std::make_unique<ListExpr>();
    node->line = take().line;
    while (!current().is_op("]")) {
      if (!node->items.empty()) expect_op(",");
      if (current().is_op("]")) break;
      node->items.push_back(expression());
      deepen(*node, node->items.back().get());
    }
    take();
    return node;
  }

  ExprPtr dictionary() {
    auto node = std::make_unique<DictExpr>();
    node->line = take().line;
    while (!current().is_op("}")) {
      if (!node->items.empty()) expect_op(",");
      if (current().is_op("}")) break;
      ExprPtr key = expression();
      expect_op(":");
      node->items.emplace_back(std::move(key), expression());
      deepen(*node, node->items.back().first.get());
      deepen(*node, node->items.back().second.get());
    }
    take();
    return node;
  }

  ExprPtr postfix(ExprPtr node) {
    for (;;) {
      if (current().is_op("."))
        node = attribute(std::move(node));
      else if (current().is_op("["))
        node = subscript(std::move(node));
      else if (current().is_op("("))
        node = call(std::move(node));
      else
        return node;
    }
  }

  ExprPtr attribute(ExprPtr object) {
    const int line = take().line;
    const Token name = take();
    const Expr* child = object.get();
    if (name.kind == TokenKind::integer) {
      auto node = std::make_unique<ItemExpr>();
      node->object = std::move(object);
      node->key = constant(name.integer, line);
      return finish(std::move(node), line, {child});
    }
    if (name.kind != TokenKind::name) error("expected a name or number after '.'");
    auto node = std::make_unique<AttributeExpr>();
    node->object = std::move(object);
    node->name = name.text;
    return finish(std::move(node), line, {child});
  }

  ExprPtr subscript(ExprPtr object) {
    const int line = take().line;
    const Expr* child = object.get();
    ExprPtr key;
    if (!current().is_op(":") && !current().is_op("]")) key = expression();
    if (current().is_op(":")) return slice(std::move(object), std::move(key), line);
    if (!key || current().is_op(",")) {  // x[] and x[a, b]: a tuple as the key
      auto keys = std::make_unique<ListExpr>();
      keys->kind = ListKind::tuple;
      if (key) keys->items.push_back(std::move(key));
      while (!current().is_op("]")) {
        expect_op(",");
        keys->items.push_back(expression());
      }
      for (const ExprPtr& item : keys->items) deepen(*keys, item.get());
      key = std::move(keys);
    }
    expect_op("]");
    auto node = std::make_unique<ItemExpr>();
    const Expr* key_child = key.get();
    node->object = std::move(object);
    node->key = std::move(key);
    return finish(std::move(node), line, {child, key_child});
  }

  ExprPtr slice(ExprPtr object, ExprPtr start, int line) {
    auto node = std::make_unique<SliceExpr>();
    node->object = std::move(object);
    node->start = std::move(start);
    expect_op(":");
    if (!current().is_op(":") && !current().is_op("]")) node->stop = expression();
    if (skip_op(":") && !current().is_op("]")) node->step = expression();
    expect_op("]");
    const Expr *a = node->object.get(), *b = node->start.get(), *c = node->stop.get(), *d = node->step.get();
    return finish(std::move(node), line, {a, b, c, d});
  }

  CallArguments arguments() {
    CallArguments out;
    expect_op("(");
    const auto ensure = [&](bool rule) {
      if (!rule) error("invalid syntax for function call expression");
    };
    bool first = true;
    while (!current().is_op(")")) {
      if (!first) {
        expect_op(",");
        if (current().is_op(")")) break;
      }
      first = false;
      if (skip_op("**")) {
        ensure(!out.more_named);
        out.more_named = expression();
      } else if (skip_op("*")) {
        ensure(!out.more_positional && !out.more_named);
        out.more_positional = expression();
      } else if (current().kind == TokenKind::name && look().is_op("=")) {
        ensure(!out.more_named);
        std::string name = take().text;
        take();
        for (const auto& entry : out.named) ensure(entry.first != name);
        out.named.emplace_back(std::move(name), expression());
      } else {
        ensure(!out.more_positional && !out.more_named && out.named.empty());
        out.positional.push_back(expression());
      }
    }
    expect_op(")");
    return out;
  }

  std::unique_ptr<CallExpr> call(ExprPtr callee) {
    auto node = std::make_unique<CallExpr>();
    const int line = current().line;
    const Expr* child = callee.get();
    node->callee = std::move(callee);
    node->arguments = arguments();
    deepen(*node, node->arguments);
    return finish(std::move(node), line, {child});
  }

  std::string dotted_name() {
    std::string name = expect_name();
    while (skip_op(".")) (name += '.') += expect_name();
    return name;
  }

  // The name after '|'. An unknown filter is an error at once, except below an if: there only when it is reached.
  std::unique_ptr<FilterExpr> filter(ExprPtr input) {
    auto node = std::make_unique<FilterExpr>();
    const int line = current().line;
    node->name = dotted_name();
    node->function = find_filter(node->name);
    if (!node->function && conditional_depth_ == 0) error(fmt::format("No filter named '{}'", printable(node->name)));
    if (current().is_op("(")) node->arguments = arguments();
    deepen(*node, node->arguments);
    const Expr* child = input.get();
    node->input = std::move(input);
    return finish(std::move(node), line, {child});
  }
  // filter|filter|..., as a block names them; null when there is none.
  std::unique_ptr<FilterExpr> block_filter(bool starts_inline) {
    std::unique_ptr<FilterExpr> node;
    while (starts_inline || current().is_op("|")) {
      if (!std::exchange(starts_inline, false)) take();
      node = filter(std::move(node));
    }
    return node;
  }

  ExprPtr filters_and_tests(ExprPtr node) {
    for (;;) {
      if (skip_op("|"))
        node = filter(std::move(node));
      else if (current().is_name("is"))
        node = test(std::move(node));
      else if (current().is_op("("))
        node = call(std::move(node));
      else
        return node;
    }
  }

  bool at_test_argument() const {
    const Token& token = current();
    if (token.kind == TokenKind::name) return token.text != "else" && token.text != "or" && token.text != "and";
    return token.kind == TokenKind::string || token.kind == TokenKind::integer || token.kind == TokenKind::real || token.is_op("[") || token.is_op("{");
  }
  ExprPtr test(ExprPtr input) {
    const int line = take().line;
    const bool negated = skip_name("not");
    auto node = std::make_unique<TestExpr>();
    node->name = dotted_name();
    node->function = find_test(node->name);
    if (!node->function && conditional_depth_ == 0) error(fmt::format("No test named '{}'", printable(node->name)));
    if (current().is_op("(")) {
      node->arguments = arguments();
    } else if (at_test_argument()) {
      if (current().is_name("is")) error("You cannot chain multiple tests with is");
      node->arguments.positional.push_back(postfix(primary()));
    }
    deepen(*node, node->arguments);
    const Expr* child = input.get();
    node->input = std::move(input);
    ExprPtr result = finish(std::move(node), line, {child});
    return negated ? unary(UnaryOp::logical_not, std::move(result), line) : std::move(result);
  }

  // A name is read here: by the template, and by every macro that is open.
  void note_read(const std::string& name) {
    if (!names_set_.contains(name)) program_.names_read.insert(name);
    for (Names& names : macro_reads_) names.insert(name);
  }

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int nesting_ = 0;
  int conditional_depth_ = 0;
  TemplateProgram& program_;
  std::set<std::string> names_set_, names_to_set_;  // so far; by the statement at hand
  std::vector<Names> macro_reads_;                  // names read in each macro that is open
};

}  // namespace frugal::text::jinja
