#include "text/template_render.h"

#include <algorithm>
#include <utility>

namespace frugal::text::jinja {

Value* Scope::find_here(std::string_view name) {
  for (auto& [key, value] : variables) {
    if (key == name) return &value;
  }
  return nullptr;
}

void Scope::set(std::string_view name, Value value) {
  if (Value* found = find_here(name)) {
    *found = std::move(value);
  } else {
    variables.emplace_back(name, std::move(value));
  }
}

ScopeGuard::ScopeGuard(Render& r, std::shared_ptr<Scope> parent) : r_(r), before_(r.scope) {
  const int depth = parent ? parent->depth + 1 : 0;
  if (depth > Render::kMaxScopeDepth) template_error("scopes nested deeper than {}", Render::kMaxScopeDepth);
  r.scope = std::make_shared<Scope>(Scope{std::move(parent), depth, {}});
}

namespace {

// A role of one plain word cannot forge a special token, but templates build special tokens from it.
bool is_plain_word(const Json& role) {
  if (!role.is_string()) return false;
  const auto& text = role.get_ref<const std::string&>();
  return !text.empty() && text.size() <= 32 && text.find_first_not_of("abcdefghijklmnopqrstuvwxyz_") == std::string::npos;
}

Value messages_value(const Json& messages) {
  const Value value = from_json(messages, kFromData);
  const ListData* list = value.list();
  if (!list) return value;
  auto marked = std::make_shared<ListData>();
  marked->depth = list->depth;
  for (size_t i = 0; i < list->items.size(); ++i) {
    const DictData* dict = list->items[i].dict();
    const auto role = dict ? messages[i].find("role") : messages[i].end();
    if (!dict || role == messages[i].end() || !is_plain_word(*role)) {
      marked->items.push_back(list->items[i]);
      continue;
    }
    auto message = std::make_shared<DictData>();
    message->depth = dict->depth;
    message->entries = dict->entries;
    for (auto& [key, item] : message->entries) {
      if (key.text().bytes == "role") item = from_json(*role, kFromTemplate);
    }
    marked->items.push_back(std::shared_ptr<const DictData>(std::move(message)));
  }
  return std::shared_ptr<const ListData>(std::move(marked));
}

std::vector<RenderedSegment> segments_of(const Text& text) {
  std::vector<RenderedSegment> out;
  for (size_t begin = 0; begin < text.size();) {
    const char mark = text.marks[begin];
    const size_t end = std::min(text.marks.find_first_not_of(mark, begin), text.size());
    out.push_back({text.bytes.substr(begin, end - begin), (mark & kFromData) != 0, (mark & kGeneration) != 0});
    begin = end;
  }
  return out;
}

}  // namespace

Render::Render(const TemplateProgram& program, const RenderOptions& options)
    : budget(options.limits), scope(std::make_shared<Scope>()), program_(program), options_(options), clock_(options.clock ? options.clock : &system_clock()) {}

Render::~Render() {
  // Emptied one by one while the lists still hold every one of them, so that no destructor recurses along a chain.
  scope.reset();
  for (const auto& captured : captured_scopes_) captured->variables.clear();
  for (const auto& space : namespaces_) space->attributes.clear();
}

std::vector<RenderedSegment> Render::run(const Json& messages) {
  try {
    install_globals(*this);
    const auto add_object = [&](const Json& json, char mark, std::string_view what) {
      if (json.is_null()) return;
      if (!json.is_object()) template_error("{} must be an object", what);
      for (const auto& [key, value] : json.items()) set(key, from_json(value, mark));
    };
    add_object(options_.special_tokens, kFromTemplate, "special_tokens");
    if (!options_.bos_token.empty()) set("bos_token", from_json(options_.bos_token, kFromTemplate));
    if (!options_.eos_token.empty()) set("eos_token", from_json(options_.eos_token, kFromTemplate));
    add_object(options_.extra, kFromData, "chat_template_kwargs");
    set("messages", messages_value(messages));
    set("tools", from_json(options_.tools, kFromData));
    set("documents", from_json(options_.documents, kFromData));
    set("add_generation_prompt", options_.add_generation_prompt);
    captured_scopes_.push_back(scope);
    run_body(program_.body);
  } catch (const Error& error) {
    fail(error.kind(), "{}: line {}: {}", program_.name, line, error.what());
  }
  return segments_of(output_);
}

namespace {
struct DepthGuard {
  DepthGuard(int& depth, int limit) : depth(depth) {
    if (depth >= limit) template_error("the template nests deeper than {} while it runs", limit);
    ++depth;
  }
  ~DepthGuard() { --depth; }
  int& depth;
};
}  // namespace

Value Render::eval(const Expr& expr) {
  const DepthGuard guard(depth_, kMaxDepth);
  budget.step();
  return expr.eval(*this);
}

Flow Render::run_body(const Body& body) {
  for (const auto& statement : body) {
    const DepthGuard guard(depth_, kMaxDepth);
    budget.step();
    line = statement->line;
    const Flow flow = statement->run(*this);
    if (flow != Flow::next) return flow;
  }
  return Flow::next;
}

Text Render::capture(const Body& body) {
  Text text;
  Text* const before = std::exchange(out_, &text);
  struct Restore {
    Text*& slot;
    Text* value;
    ~Restore() { slot = value; }
  } restore{out_, before};
  const ScopeGuard guard(*this);
  run_body(body);
  return text;
}

void Render::write(const Text& text) {
  budget.text(out_->size() + text.size());
  out_->append(text);
}

void Render::write_template(std::string_view text) {
  if (out_->size() + text.size() > options_.limits.max_output_bytes) budget.text(out_->size() + text.size());
  out_->append(text);
}

Value Render::lookup(std::string_view name) const {
  for (Scope* at = scope.get(); at; at = at->parent.get()) {
    if (const Value* found = at->find_here(name)) return *found;
  }
  return undefined(fmt::format("'{}' is undefined", name));
}

void Render::fail_undefined(const Value& value) const { template_error("{}", printable(*std::get<Undefined>(value).message, 200)); }

std::shared_ptr<Macro> Render::make_macro(const MacroSpec& spec) {
  if (captured_scopes_.back() != scope) captured_scopes_.push_back(scope);
  return std::make_shared<Macro>(spec, scope);
}

std::shared_ptr<NamespaceData> Render::make_namespace() {
  budget.step();
  return namespaces_.emplace_back(std::make_shared<NamespaceData>());
}

std::optional<Value> Macro::attribute(Render& r, std::string_view name) {
  if (name == "name") return make_string(r, Text(spec_.name));
  return std::nullopt;
}

void Macro::bind(Render& r, const Arguments& arguments) const {
  auto named = arguments.named;
  const auto take = [&](std::string_view name) -> std::optional<Value> {
    const auto found = std::find_if(named.begin(), named.end(), [&](const auto& entry) { return entry.first == name; });
    if (found == named.end()) return std::nullopt;
    Value value = std::move(found->second);
    named.erase(found);
    return value;
  };
  const size_t given = std::min(arguments.positional.size(), spec_.parameters.size());
  for (size_t i = 0; i < given; ++i) r.set(spec_.parameters[i].first, arguments.positional[i]);
  std::vector<size_t> missing;
  for (size_t i = given; i < spec_.parameters.size(); ++i) {
    if (auto value = take(spec_.parameters[i].first))
      r.set(spec_.parameters[i].first, std::move(*value));
    else
      missing.push_back(i);
  }
  const bool has_caller_parameter = std::any_of(spec_.parameters.begin(), spec_.parameters.end(), [](const auto& p) { return p.first == "caller"; });
  if (spec_.takes_caller && !has_caller_parameter) r.set("caller", take("caller").value_or(undefined("No caller defined")));
  if (spec_.takes_more_named) {
    std::vector<std::pair<Value, Value>> entries;
    for (auto& [name, value] : named) entries.emplace_back(make_string(r, Text(name)), value);
    r.set("kwargs", make_dict(r, std::move(entries)));
  } else if (!named.empty()) {
    template_error("macro '{}' takes no keyword argument '{}'", spec_.name, named.front().first);
  }
  if (spec_.takes_more_positional) {
    const auto begin = arguments.positional.begin() + static_cast<std::ptrdiff_t>(given);
    r.set("varargs", make_list(r, {begin, arguments.positional.end()}, ListKind::tuple));
  } else if (arguments.positional.size() > given) {
    template_error("macro '{}' takes not more than {} argument(s)", spec_.name, spec_.parameters.size());
  }
  for (const size_t i : missing) {
    const auto& [name, fallback] = spec_.parameters[i];
    r.set(name, fallback ? r.eval(*fallback) : undefined(fmt::format("parameter '{}' was not provided", name)));
  }
}

Value Macro::call(Render& r, const Arguments& arguments) {
  const DepthGuard depth(r.macro_depth, Render::kMaxMacroDepth);
  const ScopeGuard guard(r, scope_);
  bind(r, arguments);
  const int line = r.line;
  Text text = r.capture(spec_.body);
  r.line = line;
  return make_string(r, std::move(text));
}

Bound::Bound(const Arguments& arguments, std::string_view function, std::initializer_list<std::string_view> names)
    : function_(function), names_(names), values_(names.size(), nullptr) {
  if (arguments.positional.size() > names.size()) {
    template_error("{}() takes at most {} argument(s), got {}", function, names.size(), arguments.positional.size());
  }
  for (size_t i = 0; i < arguments.positional.size(); ++i) values_[i] = &arguments.positional[i];
  for (const auto& [name, value] : arguments.named) {
    const auto found = std::find(names_.begin(), names_.end(), name);
    if (found == names_.end()) template_error("{}() got an unexpected keyword argument '{}'", function, printable(name));
    const Value*& slot = values_[static_cast<size_t>(found - names_.begin())];
    if (slot) template_error("{}() got two values for '{}'", function, name);
    slot = &value;
  }
}

const Value& Bound::required(size_t index) const {
  if (!values_[index]) template_error("{}() needs the argument '{}'", function_, names_[index]);
  return *values_[index];
}

int64_t Bound::integer(size_t index, int64_t fallback) const { return values_[index] ? index_of(*values_[index], names_[index]) : fallback; }

const Text& Bound::text(size_t index) const {
  const Value& value = required(index);
  if (!value.string()) template_error("{}(): '{}' must be a string, not '{}'", function_, names_[index], type_name(value));
  return value.text();
}

const std::string* Bound::bytes_or_none(size_t index) const {
  if (!values_[index] || values_[index]->is_none()) return nullptr;
  return &text(index).bytes;
}

}  // namespace frugal::text::jinja
