// Jinja's statements; see template_expression_parser.h.
#include <utility>

#include "text/template_expression_parser.h"

namespace frugal::text::jinja {
namespace {

class Parser : ExpressionParser {
 public:
  Parser(std::string_view source, TemplateProgram& program) : ExpressionParser(source, program) {}

  void parse() {
    program_.body = body_until({});
    if (current().kind != TokenKind::end) error("unexpected end tag");
  }

 private:
  using EndNames = std::initializer_list<std::string_view>;

  // Statements up to a tag that starts with one of `ends`; that name is the current token then. Without ends: all.
  Body body_until(EndNames ends) {
    const Nest nest(*this);
    const std::set<std::string> set_before = names_set_;
    Body body;
    for (;;) {
      names_set_.merge(names_to_set_);
      const Token& token = current();
      if (token.kind == TokenKind::end) {
        if (ends.size() > 0) error(fmt::format("a block is not closed, expected '{}'", *ends.begin()));
        return body;
      }
      if (token.kind == TokenKind::data) {
        auto data = std::make_unique<DataStmt>();
        data->line = token.line;
        data->text = take().text;
        body.push_back(std::move(data));
      } else if (token.kind == TokenKind::variable_begin) {
        body.push_back(print_tag());
      } else {
        expect(TokenKind::block_begin, "a tag");
        for (const std::string_view end : ends) {
          if (!current().is_name(end)) continue;
          names_set_ = set_before;  // perhaps the body does not run
          return body;
        }
        body.push_back(statement());
        expect(TokenKind::block_end, "end of statement block");
      }
    }
  }
  Body block(EndNames ends) {
    skip_op(":");
    expect(TokenKind::block_end, "end of statement block");
    return body_until(ends);
  }
  // A block whose end tag is consumed.
  Body closed_block(std::string_view end) {
    Body body = block({end});
    take();
    return body;
  }

  std::unique_ptr<Stmt> print_tag() {
    auto print = std::make_unique<PrintStmt>();
    print->line = take().line;
    print->values.push_back(tuple({}));
    expect(TokenKind::variable_end, "end of print statement");
    return print;
  }

  std::unique_ptr<Stmt> statement() {
    if (current().kind != TokenKind::name) error("tag name expected");
    struct Row {
      std::string_view name;
      std::unique_ptr<Stmt> (Parser::*parse)();
    };
    static constexpr Row kRows[] = {
        {"if", &Parser::if_statement},       {"for", &Parser::for_statement},       {"set", &Parser::set_statement},
        {"macro", &Parser::macro_statement}, {"call", &Parser::call_statement},     {"filter", &Parser::filter_statement},
        {"with", &Parser::with_statement},   {"print", &Parser::print_statement},   {"generation", &Parser::generation_statement},
        {"break", &Parser::flow_statement},  {"continue", &Parser::flow_statement},
    };
    const int line = current().line;
    for (const Row& row : kRows) {
      if (!current().is_name(row.name)) continue;
      auto parsed = (this->*row.parse)();
      parsed->line = line;
      return parsed;
    }
    for (const std::string_view name : {"include", "import", "from", "extends", "block", "autoescape"}) {
      if (current().is_name(name)) {
        fail(ErrorKind::unsupported, "{}: line {}: the tag '{}' is not allowed in a chat template", program_.name, line, name);
      }
    }
    error("unknown tag");
  }

  std::unique_ptr<Stmt> if_statement() {
    auto node = std::make_unique<IfStmt>();
    ++conditional_depth_;
    std::string end;
    do {
      take();  // if or elif
      ExprPtr condition = tuple({.with_condition = false});
      Body body = block({"elif", "else", "endif"});
      node->branches.emplace_back(std::move(condition), std::move(body));
      end = current().text;
    } while (end == "elif");
    take();
    if (end == "else") node->otherwise = closed_block("endif");
    --conditional_depth_;
    return node;
  }

  std::unique_ptr<Stmt> for_statement() {
    auto node = std::make_unique<ForStmt>();
    take();
    node->target = target("in", false);
    if (!skip_name("in")) error("expected 'in'");
    node->iterable = tuple({.with_condition = false, .end_name = "recursive"});
    if (skip_name("if")) node->condition = expression();
    node->recursive = skip_name("recursive");
    ++loop_depth_;
    node->body = block({"endfor", "else"});
    --loop_depth_;
    if (take().text == "else") node->otherwise = closed_block("endfor");
    return node;
  }

  std::unique_ptr<Stmt> set_statement() {
    take();
    Target assigned = target({}, true);
    if (skip_op("=")) {
      auto node = std::make_unique<SetStmt>();
      node->target = std::move(assigned);
      node->value = tuple({});
      return node;
    }
    auto node = std::make_unique<SetBlockStmt>();
    node->target = std::move(assigned);
    node->filter = block_filter(false);
    node->body = inner_block("endset");
    return node;
  }

  // A block whose output is captured: break and continue cannot leave it.
  Body inner_block(std::string_view end) {
    const int loops = std::exchange(loop_depth_, 0);
    Body body = closed_block(end);
    loop_depth_ = loops;
    return body;
  }

  void signature(MacroSpec& spec) {
    expect_op("(");
    bool defaults = false;
    while (!current().is_op(")")) {
      if (!spec.parameters.empty()) expect_op(",");
      std::string name = assignable_name();
      ExprPtr fallback;
      if (skip_op("="))
        fallback = expression();
      else if (defaults)
        error("non-default argument follows default argument");
      defaults = fallback != nullptr;
      for (const auto& parameter : spec.parameters) {
        if (parameter.first == name) error("duplicate argument");
      }
      spec.parameters.emplace_back(std::move(name), std::move(fallback));
    }
    take();
  }

  void macro_body(MacroSpec& spec, std::string_view end) {
    const int loops = std::exchange(loop_depth_, 0);
    macro_reads_.emplace_back();
    spec.body = closed_block(end);
    const Names names = std::move(macro_reads_.back());
    macro_reads_.pop_back();
    loop_depth_ = loops;
    spec.takes_more_positional = names.contains("varargs");
    spec.takes_more_named = names.contains("kwargs");
    spec.takes_caller = names.contains("caller");
  }

  std::unique_ptr<Stmt> macro_statement() {
    auto node = std::make_unique<MacroStmt>();
    take();
    node->macro.name = assignable_name();
    signature(node->macro);
    macro_body(node->macro, "endmacro");
    return node;
  }

  std::unique_ptr<Stmt> call_statement() {
    auto node = std::make_unique<CallBlockStmt>();
    take();
    node->caller.name = "caller";
    if (current().is_op("(")) signature(node->caller);
    ExprPtr expr = expression();
    auto* call = dynamic_cast<CallExpr*>(expr.get());
    if (!call) error("expected call");
    static_cast<void>(expr.release());
    node->call.reset(call);
    macro_body(node->caller, "endcall");
    return node;
  }

  std::unique_ptr<Stmt> filter_statement() {
    auto node = std::make_unique<FilterBlockStmt>();
    take();
    node->filter = block_filter(true);
    node->body = inner_block("endfilter");
    return node;
  }

  std::unique_ptr<Stmt> with_statement() {
    auto node = std::make_unique<WithStmt>();
    take();
    while (current().kind != TokenKind::block_end) {
      if (!node->assignments.empty()) expect_op(",");
      Target assigned = target({}, false);
      expect_op("=");
      node->assignments.emplace_back(std::move(assigned), expression());
    }
    node->body = closed_block("endwith");
    return node;
  }

  std::unique_ptr<Stmt> print_statement() {
    auto node = std::make_unique<PrintStmt>();
    take();
    while (current().kind != TokenKind::block_end) {
      if (!node->values.empty()) expect_op(",");
      node->values.push_back(expression());
    }
    return node;
  }

  std::unique_ptr<Stmt> generation_statement() {
    auto node = std::make_unique<GenerationStmt>();
    take();
    node->body = inner_block("endgeneration");
    return node;
  }

  std::unique_ptr<Stmt> flow_statement() {
    auto node = std::make_unique<FlowStmt>();
    node->flow = current().is_name("break") ? Flow::break_loop : Flow::continue_loop;
    if (loop_depth_ == 0) error("break and continue belong inside a loop");
    take();
    return node;
  }

  std::string assignable_name() {
    const std::string name = expect_name();
    for (const std::string_view reserved : {"true", "false", "none", "True", "False", "None"}) {
      if (name == reserved) error(fmt::format("can't assign to '{}'", name));
    }
    names_to_set_.insert(name);
    return name;
  }

  // name, namespace.attribute, or a tuple of those with or without brackets. `end_name` also ends a tuple.
  Target target(std::string_view end_name, bool with_namespace) {
    std::vector<Target> parts;
    bool is_tuple = false;
    while (!at_tuple_end(end_name) && !current().is_op("=")) {
      parts.push_back(single_target(with_namespace));
      if (!skip_op(",")) break;
      is_tuple = true;
    }
    if (!is_tuple && parts.size() == 1) return std::move(parts.front());
    if (parts.empty()) error("expected a name to assign to");
    Target out;
    out.is_tuple = true;
    out.parts = std::move(parts);
    return out;
  }
  Target single_target(bool with_namespace) {
    if (current().is_op("(")) {
      const Nest nest(*this);
      take();
      Target inner = target({}, false);
      expect_op(")");
      return inner;
    }
    Target out;
    const bool attribute = with_namespace && look().is_op(".");
    out.name = attribute ? expect_name() : assignable_name();
    if (attribute) {
      take();
      out.attribute = expect_name();
      note_read(out.name);
    }
    return out;
  }

  int loop_depth_ = 0;
};

}  // namespace

TemplateProgram parse_template(std::string_view source, std::string name) {
  TemplateProgram program;
  program.name = std::move(name);
  program.source = source;
  try {
    Parser(source, program).parse();
  } catch (const Error& error) {
    const std::string_view what = error.what();
    if (what.starts_with(program.name + ": ")) throw;
    fail(error.kind(), "{}: {}", program.name, what);  // from the lexer
  }
  return program;
}

}  // namespace frugal::text::jinja
