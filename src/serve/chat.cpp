#include "serve/chat.h"

#include <algorithm>

#include "serve/fields.h"
#include "serve/structure.h"
#include "text/chat_template.h"
#include "text/chat_tokens.h"
#include "text/grammar/tool_grammar.h"

namespace frugal::serve {
namespace {

constexpr size_t kMostMessages = 10'000, kMostTools = 128, kLongestName = 64;

bool is_function_name(const Json& name) {
  if (!name.is_string()) return false;
  const auto& text = name.get_ref<const std::string&>();
  return !text.empty() && text.size() <= kLongestName &&
         std::ranges::all_of(text, [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-' || c == '.'; });
}

// Parts of a content as one text: what templates of text models take.
std::string joined_parts(const Json& parts, const std::string& where) {
  std::string text;
  for (const Json& part : parts) {
    if (!part.is_object() || part.value("type", Json(nullptr)) != "text" || !part.contains("text") || !part["text"].is_string())
      refuse(where, fmt::format(".content has the part {}: this model reads text only", printable(dump(part))));
    text += part["text"].get<std::string>();
  }
  return text;
}

// Calls as templates want them: arguments as an object, and for Mistral's ids of nine characters.
Json clean_calls(const Json& calls, const std::string& where, bool short_ids) {
  if (!calls.is_array()) refuse(where + ".tool_calls", " must be a list");
  Json clean = Json::array();
  for (const Json& call : calls) {
    const Json* const function = call.is_object() ? given(call, "function") : nullptr;
    if (!function || !function->is_object() || !is_function_name(function->value("name", Json(nullptr))))
      refuse(where + ".tool_calls", " must have functions with a name each");
    Json arguments = function->value("arguments", Json(nullptr));
    if (arguments.is_string()) arguments = arguments == "" ? Json::object() : Json::parse(arguments.get_ref<const std::string&>(), nullptr, false);
    if (arguments.is_null()) arguments = Json::object();
    if (!arguments.is_object()) refuse(where + ".tool_calls", " has arguments that are not a JSON object");
    Json one = {{"type", "function"}, {"function", {{"name", (*function)["name"]}, {"arguments", arguments}}}};
    if (const Json* id = given(call, "id"); id && id->is_string()) {
      const std::string text = id->get<std::string>();
      one["id"] = short_ids && text.size() > 9 ? text.substr(text.size() - 9) : text;
    }
    clean.push_back(std::move(one));
  }
  return clean;
}

Json clean_message(const Json& message, size_t index, bool short_ids) {
  const std::string where = fmt::format("messages[{}]", index);
  if (!message.is_object()) refuse(where, " must be an object");
  Json result = message;
  static const std::vector<std::string> roles = {"system", "user", "assistant", "tool", "developer"};
  const auto role = message.find("role");
  if (role == message.end() || !role->is_string() || std::ranges::find(roles, role->get<std::string>()) == roles.end())
    refuse(where, ".role must be system, user, assistant, tool or developer");
  if (*role == "developer") result["role"] = "system";
  const Json* const content = given(message, "content");
  if (!content && *role != "assistant") refuse(where, ".content must be a string");
  if (!content)
    result["content"] = "";
  else if (content->is_array())
    result["content"] = joined_parts(*content, where);
  else if (!content->is_string())
    refuse(where, ".content must be a string or a list of parts");
  result.erase("tool_calls");
  if (const Json* calls = given(message, "tool_calls"); calls && !calls->empty()) {
    if (*role != "assistant") refuse(where, ".tool_calls are of an assistant");
    result["tool_calls"] = clean_calls(*calls, where, short_ids);
  }
  if (const Json* id = given(message, "tool_call_id")) {
    if (!id->is_string()) refuse(where, ".tool_call_id must be a string");
    const std::string text = id->get<std::string>();
    if (short_ids && text.size() > 9) result["tool_call_id"] = text.substr(text.size() - 9);
  }
  return result;
}

// The functions that may be called.
struct Tools {
  Json told;  // as they were given
  std::vector<text::Tool> all;
  std::vector<text::Tool> callable;
  bool required = false, parallel = true;
};

text::Tool read_tool(const Json& tool, size_t index) {
  const std::string where = fmt::format("tools[{}]", index);
  if (!tool.is_object() || tool.value("type", Json("function")) != "function") refuse(where, ".type must be function");
  const Json* const function = given(tool, "function");
  if (!function || !function->is_object()) refuse(where, ".function must be an object");
  const auto name = function->find("name");
  if (name == function->end() || !is_function_name(*name))
    refuse(where, fmt::format(".function.name must be 1 to {} of a-z, A-Z, 0-9, '_', '-' and '.'", kLongestName));
  text::Tool read;
  read.name = name->get<std::string>();
  const Json description = function->value("description", Json(nullptr));
  if (!description.is_null() && !description.is_string()) refuse(where, ".function.description must be a string");
  if (description.is_string()) read.description = description.get<std::string>();
  const Json* const parameters = given(*function, "parameters");
  if (parameters && !parameters->is_object()) refuse(where, ".function.parameters must be a JSON schema");
  if (parameters && !parameters->empty()) read.parameters = *parameters;
  read.strict = flag(*function, "strict", false);
  return read;
}

Tools read_tools(const Json& body) {
  Tools tools;
  const Json* const list = given(body, "tools");
  if (list && !list->is_array()) refuse("tools", " must be a list");
  if (list && list->size() > kMostTools) refuse("tools", fmt::format(" has {} entries, {} are allowed", list->size(), kMostTools));
  for (size_t i = 0; list && i < list->size(); ++i) {
    tools.all.push_back(read_tool((*list)[i], i));
    if (std::ranges::count(tools.all, tools.all.back().name, &text::Tool::name) > 1)
      refuse("tools", fmt::format(" has the function {} twice", tools.all.back().name));
  }
  tools.parallel = flag(body, "parallel_tool_calls", true);
  const Json choice = given(body, "tool_choice") ? body["tool_choice"] : Json("auto");
  if (choice == "none") return {};
  if (list && !list->empty()) tools.told = *list;
  tools.callable = tools.all;
  if (choice == "auto") return tools;
  tools.required = true;
  if (choice.is_object() && choice.value("type", Json(nullptr)) == "function") {
    const Json function = choice.value("function", Json::object());
    const Json name = function.is_object() ? function.value("name", Json(nullptr)) : Json(nullptr);
    std::erase_if(tools.callable, [&](const text::Tool& tool) { return Json(tool.name) != name; });
    if (tools.callable.empty()) refuse("tool_choice", " names no function of tools");
  } else if (choice != "required") {
    refuse("tool_choice", " must be none, auto, required or {\"type\": \"function\", \"function\": {\"name\": ...}}");
  } else if (tools.all.empty()) {
    refuse("tool_choice", " of required needs tools");
  }
  return tools;
}

std::vector<text::RenderedSegment> rendered(const Json& body, const ServedModel& served, const Tools& tools) {
  served.require_generation();
  const nn::LoadedModel& model = served.loaded;
  if (!model.chat_template) {
    const std::string& problem = model.chat_template_problem;
    throw ApiError(400, problem.empty() ? "the model has no chat template" : "the model's chat template cannot be used: " + problem, "messages");
  }
  const Json* const messages = given(body, "messages");
  if (!messages || !messages->is_array() || messages->empty()) refuse("messages", " must be a list of at least one message");
  if (messages->size() > kMostMessages) refuse("messages", fmt::format(" has {} entries, {} are allowed", messages->size(), kMostMessages));
  const text::ToolFormat& format = *served.tool_format;
  Json clean = Json::array();
  for (size_t i = 0; i < messages->size(); ++i) clean.push_back(clean_message((*messages)[i], i, format.open == "[TOOL_CALLS]"));
  text::RenderOptions options;
  const bool tool_talk =
      !tools.all.empty() || std::ranges::any_of(clean, [](const Json& message) { return message["role"] == "tool" || message.contains("tool_calls"); });
  if (format.native)
    options.tools = tools.told;
  else if (tool_talk)
    clean = text::with_tools_told(clean, tools.all);
  options.add_generation_prompt = flag(body, "add_generation_prompt", true);
  options.bos_token = model.bos_text;
  options.eos_token = model.eos_text;
  options.extra = Json::object();
  if (const Json* effort = given(body, "reasoning_effort")) {
    if (!effort->is_string()) refuse("reasoning_effort", " must be a string");
    options.extra["reasoning_effort"] = *effort;
    if (*effort == "none") options.extra["enable_thinking"] = false;
  }
  if (const Json* extra = given(body, "chat_template_kwargs")) {
    if (!extra->is_object()) refuse("chat_template_kwargs", " must be an object");
    static const std::vector<std::string> own = {"messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token"};
    for (const auto& [key, value] : extra->items()) {
      if (std::ranges::find(own, key) != own.end()) refuse("chat_template_kwargs", " must not set " + key);
    }
    options.extra.update(*extra);
  }
  return model.chat_template->render(clean, options);
}

bool ends_with(std::string_view text, std::string_view mark) {
  const size_t last = text.find_last_not_of(" \t\r\n");
  return !mark.empty() && last != std::string_view::npos && text.substr(0, last + 1).ends_with(mark);
}

// Of an answer that calls tools, or is as `structure` says, or any text.
std::shared_ptr<const text::GrammarMatcher> matcher_of(const Tools& tools, const std::optional<Structure>& structure, ServedModel& model) {
  text::ToolGrammarOptions options = {tools.required, tools.parallel};
  std::string key = fmt::format("tools:{}:{}:{}", options.required, options.parallel, structure ? structure->key : "");
  for (const text::Tool& tool : tools.callable) key += dump({tool.name, tool.parameters, tool.strict});
  try {
    return model.matcher(key, true, [&] {
      const std::shared_ptr<const text::Grammar> answer = structure ? structure->compile() : nullptr;
      options.answer = answer.get();
      return text::tool_grammar(*model.tool_format, tools.callable, options);
    });
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::internal || error.kind() == ErrorKind::out_of_memory) throw;
    throw ApiError(400, error.what(), "tools");
  }
}

}  // namespace

int64_t asked_logprobs(const Json& body) {
  const Json* const most = given(body, "top_logprobs");  // in its range: read_request has seen it
  if (const Json* logprobs = given(body, "logprobs")) {
    if (!logprobs->is_boolean()) refuse("logprobs", " must be true or false; top_logprobs says how many");
    if (*logprobs == true) return most ? most->get<int64_t>() : 0;
  }
  if (most && *most != 0) refuse("top_logprobs", " needs logprobs");
  return -1;
}

std::vector<int32_t> chat_prompt(const Json& body, const ServedModel& model) {
  return text::encode_segments(*model.loaded.tokenizer, rendered(body, model, read_tools(body)));
}

std::string chat_text(const Json& body, const ServedModel& model) { return text::joined(rendered(body, model, read_tools(body))); }

ChatRequest read_chat(Call& call, const Json& body, ServedModel& model) {
  ChatRequest chat;
  engine::Request& request = chat.request = read_request(body, model);
  request.scope = call.scope();
  const Tools tools = read_tools(body);
  const std::vector<text::RenderedSegment> prompt = rendered(body, model, tools);
  request.prompt = encode_within("messages", model.context(), [&](size_t limit) { return text::encode_segments(*model.loaded.tokenizer, prompt, limit); });
  const bool in_reasoning = !prompt.empty() && ends_with(prompt.back().text, model.reasoning.open);
  const std::optional<Structure> structure = asked_structure(body);
  request.grammar = tools.callable.empty() ? structure_of(body, model) : matcher_of(tools, structure, model);
  if (request.grammar && in_reasoning) request.grammar_after = std::string(model.reasoning.close);
  if (tools.callable.empty() && model.reasoning.open.empty()) return chat;
  request.shown = model.marks;
  text::AnswerParserOptions& reading = chat.reading.emplace();
  reading.reasoning = model.reasoning;
  reading.in_reasoning = in_reasoning;
  if (tools.callable.empty()) return chat;
  reading.tools = model.tool_format;
  reading.calls_alone = structure.has_value();
  for (const text::Tool& tool : tools.callable) reading.names.push_back(tool.name);
  return chat;
}

}  // namespace frugal::serve
