#include "text/tool_format.h"

#include <algorithm>
#include <array>

#include "base/error.h"

namespace frugal::text {
namespace {

// The first row whose mark is in a template counts.
constexpr std::array<ToolFormat, 5> kFormats = {{
    {.name = "hermes", .mark = "<tool_call>", .open = "<tool_call>", .close = "</tool_call>", .arguments = "arguments", .list = false, .separator = {}},
    {.name = "mistral_args", .mark = "[ARGS]", .open = "[TOOL_CALLS]", .close = {}, .arguments = {}, .list = false, .separator = "[ARGS]"},
    {.name = "mistral", .mark = "[TOOL_CALLS]", .open = "[TOOL_CALLS]", .close = {}, .arguments = "arguments", .list = true, .separator = {}},
    {.name = "llama3_json", .mark = "\"parameters\": ", .open = {}, .close = {}, .arguments = "parameters", .list = false, .separator = {}},
    {.name = "json", .mark = {}, .open = {}, .close = {}, .arguments = "arguments", .list = false, .separator = {}, .native = false},
}};

constexpr std::array<ReasoningMarks, 2> kReasoning = {{{"<think>", "</think>"}, {"[THINK]", "[/THINK]"}}};

std::string told(const std::vector<Tool>& tools) {
  std::string text =
      "You can call functions. To call one, answer with nothing but a JSON object {\"name\": the function's name, \"arguments\": {its arguments}}. "
      "You will then be told its result. Call a function only if it helps; otherwise answer in plain text. The functions:";
  for (const Tool& tool : tools) {
    const Json parameters = tool.parameters.is_null() ? Json{{"type", "object"}} : tool.parameters;
    text += "\n" + Json{{"name", tool.name}, {"description", tool.description}, {"parameters", parameters}}.dump();
  }
  return text;
}

std::string content_of(const Json& message) {
  const auto content = message.find("content");
  return content != message.end() && content->is_string() ? content->get<std::string>() : std::string();
}

}  // namespace

std::span<const ToolFormat> tool_formats() { return kFormats; }

const ToolFormat& tool_format(std::string_view name) {
  const auto found = std::ranges::find(kFormats, name, &ToolFormat::name);
  if (found != kFormats.end()) return *found;
  std::string names;
  for (const ToolFormat& format : kFormats) names += (names.empty() ? "" : ", ") + std::string(format.name);
  fail(ErrorKind::invalid_input, "there is no format of tool calls \"{}\"; there is {}", printable(name), names);
}

const ToolFormat& tool_format(const ChatTemplate& chat_template) {
  if (!chat_template.reads("tools")) return kFormats.back();
  return *std::ranges::find_if(kFormats, [&](const ToolFormat& format) { return chat_template.source().find(format.mark) != std::string::npos; });
}

ReasoningMarks reasoning_marks(const ChatTemplate& chat_template) {
  const auto found =
      std::ranges::find_if(kReasoning, [&](const ReasoningMarks& marks) { return chat_template.source().find(marks.close) != std::string::npos; });
  return found == kReasoning.end() ? ReasoningMarks{} : *found;
}

Json with_tools_told(const Json& messages, const std::vector<Tool>& tools) {
  Json result = Json::array();
  const auto add = [&](const std::string& role, const std::string& text) {  // templates without tools often want users and assistants in turn
    if (role == "user" && !result.empty() && result.back()["role"] == "user")
      result.back()["content"] = result.back()["content"].get<std::string>() + "\n" + text;
    else
      result.push_back({{"role", role}, {"content", text}});
  };
  Json names = Json::object();  // of calls by id
  for (const Json& message : messages) {
    const std::string role = message["role"].get<std::string>();
    std::string text = content_of(message);
    if (const auto calls = message.find("tool_calls"); calls != message.end() && calls->is_array()) {
      for (const Json& call : *calls) {
        const Json& function = call["function"];
        text += (text.empty() ? "" : "\n") + Json{{"name", function["name"]}, {"arguments", function["arguments"]}}.dump();
        if (call.contains("id") && call["id"].is_string()) names[call["id"].get<std::string>()] = function["name"];
      }
    }
    if (role != "tool") {
      add(role, text);
      continue;
    }
    const Json id = message.value("tool_call_id", Json(nullptr));
    const bool known = id.is_string() && names.contains(id.get<std::string>());
    add("user", fmt::format("The function{} returned: {}", known ? " " + names[id.get<std::string>()].get<std::string>() : "", text));
  }
  if (tools.empty()) return result;
  if (!result.empty() && result.front()["role"] == "system") {
    const std::string before = result.front()["content"].get<std::string>();
    result.front()["content"] = before + (before.empty() ? "" : "\n\n") + told(tools);
  } else {
    result.insert(result.begin(), Json{{"role", "system"}, {"content", told(tools)}});
  }
  return result;
}

}  // namespace frugal::text
