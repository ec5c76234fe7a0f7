#include "text/chat_template.h"

#include "text/template_render.h"

namespace frugal::text {

std::string joined(const std::vector<RenderedSegment>& segments) {
  std::string out;
  for (const RenderedSegment& segment : segments) out += segment.text;
  return out;
}

ChatTemplate::ChatTemplate(std::string_view source, std::string name)
    : program_(std::make_shared<jinja::TemplateProgram>(jinja::parse_template(source, std::move(name)))) {}

std::vector<RenderedSegment> ChatTemplate::render(const Json& messages, const RenderOptions& options) const {
  return jinja::Render(*program_, options).run(messages);
}

bool ChatTemplate::reads(std::string_view variable) const { return program_->names_read.contains(std::string(variable)); }

const std::string& ChatTemplate::source() const { return program_->source; }
const std::string& ChatTemplate::name() const { return program_->name; }

Json normalized_messages(const Json& messages) {
  if (!messages.is_array()) fail(ErrorKind::invalid_input, "messages must be an array");
  Json out = Json::array();
  for (size_t i = 0; i < messages.size(); ++i) {
    if (!messages[i].is_object()) fail(ErrorKind::invalid_input, "messages[{}] must be an object", i);
    Json kept = Json::object();
    for (const auto& [key, value] : messages[i].items()) {
      if (!value.is_null()) kept[key] = value;
    }
    const Json* reasoning = nullptr;
    for (const char* name : {"reasoning_content", "thinking", "reasoning"}) {
      if (!reasoning && kept.contains(name)) reasoning = &kept[name];
    }
    if (reasoning) {
      // Every name of the reasoning, as transformers orders them: {"thinking": r, **message, "reasoning_content": r}.
      const Json text = *reasoning;
      Json aliased = Json::object();
      aliased["thinking"] = text;
      for (const auto& [key, value] : kept.items()) aliased[key] = value;
      aliased["reasoning_content"] = text;
      kept = std::move(aliased);
    }
    out.push_back(std::move(kept));
  }
  return out;
}

}  // namespace frugal::text
