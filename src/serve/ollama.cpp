// Ollama's /api/generate, /api/chat, /api/tags, /api/show, /api/ps and /api/version: answers as lines of JSON, times in nanoseconds.
#include "base/log.h"
#include "serve/chat.h"
#include "serve/fields.h"
#include "serve/structure.h"
#include "serve/text_answer.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace frugal::serve {

std::shared_ptr<ServedModel> ollama_model(Call& call, const Json& body) {
  const auto given = body.contains("model") ? body.find("model") : body.find("name");
  if (given == body.end() || !given->is_string()) throw ApiError(400, "model must be a string", "model");
  std::string name = given->get<std::string>();
  if (name.ends_with(":latest")) name.resize(name.size() - 7);
  return call.service.model(name);
}

namespace {

int64_t nanoseconds(double seconds) { return static_cast<int64_t>(seconds * 1e9); }

class LineFormat final : public AnswerFormat {
 public:
  explicit LineFormat(bool chat) : chat_(chat) {}
  const char* content_type() const override { return "application/x-ndjson"; }
  std::string begin(const AnswerState&, size_t, const std::vector<engine::TokenInfo>&) override { return {}; }
  std::string piece(const AnswerState& state, size_t choice, const AnswerPiece& piece) override {
    const AnswerItem::Kind kind = state.choices[choice].items[piece.item].kind;
    if (piece.text.empty() || kind == AnswerItem::Kind::call) return {};  // calls come whole
    Json line = this->line(state, false);
    add_text(line, kind, piece.text);
    return dump(line) + "\n";
  }
  std::string end(const AnswerState& state, size_t choice) override {
    if (!state.choices[choice].calls()) return {};
    Json line = this->line(state, false);
    add_calls(line, state.choices[choice]);
    return dump(line) + "\n";
  }
  std::string finish(const AnswerState& state) override { return dump(last(state)) + "\n"; }
  std::string failure(const std::string& error_body) override { return error_body + "\n"; }
  Json whole(const AnswerState& state) override {
    Json line = last(state);
    const AnswerChoice& choice = state.choices.front();
    add_text(line, AnswerItem::Kind::text, choice.text());
    if (const std::string reasoning = choice.text(AnswerItem::Kind::reasoning); !reasoning.empty()) add_text(line, AnswerItem::Kind::reasoning, reasoning);
    if (choice.calls()) add_calls(line, choice);
    return line;
  }

 private:
  Json line(const AnswerState& state, bool done) const {
    Json line = {{"model", state.model->name}, {"created_at", utc_timestamp(state.created)}};
    if (chat_) line["message"] = {{"role", "assistant"}};
    add_text(line, AnswerItem::Kind::text, "");
    line["done"] = done;
    return line;
  }
  void add_text(Json& line, AnswerItem::Kind kind, const std::string& text) const {
    const bool thinking = kind == AnswerItem::Kind::reasoning;
    if (chat_)
      line["message"][thinking ? "thinking" : "content"] = text;
    else
      line[thinking ? "thinking" : "response"] = text;
  }
  static void add_calls(Json& line, const AnswerChoice& choice) {
    Json& calls = line["message"]["tool_calls"] = Json::array();
    for (const AnswerItem& item : choice.items) {
      if (item.kind != AnswerItem::Kind::call) continue;
      Json arguments = Json::parse(item.text, nullptr, false);
      if (!arguments.is_object()) arguments = Json::object();  // cut off
      calls.push_back({{"function", {{"index", calls.size()}, {"name", item.name}, {"arguments", arguments}}}});
    }
  }
  Json last(const AnswerState& state) const {
    const engine::ChoiceEnd& end = *state.choices.front().end;
    Json line = this->line(state, true);
    line["done_reason"] = end.reason == engine::EndReason::length ? "length" : "stop";
    line["total_duration"] = nanoseconds(end.queue_seconds + end.prompt_seconds + end.decode_seconds);
    line["load_duration"] = 0;
    line["prompt_eval_count"] = end.prompt_tokens;
    line["prompt_eval_duration"] = nanoseconds(end.prompt_seconds);
    line["eval_count"] = end.generated_tokens;
    line["eval_duration"] = nanoseconds(end.decode_seconds);
    return line;
  }
  bool chat_;
};

// The same request in OpenAI's words, whose names for what has another here are put into `own`.
Json translated(const Json& body, FieldNames& own) {
  static const std::vector<std::pair<const char*, const char*>> names = {{"temperature", "temperature"},
                                                                         {"top_k", "top_k"},
                                                                         {"top_p", "top_p"},
                                                                         {"min_p", "min_p"},
                                                                         {"typical_p", "typical_p"},
                                                                         {"seed", "seed"},
                                                                         {"stop", "stop"},
                                                                         {"repeat_penalty", "repetition_penalty"},
                                                                         {"presence_penalty", "presence_penalty"},
                                                                         {"frequency_penalty", "frequency_penalty"}};
  own = {{"max_tokens", "options.num_predict"},
         {"response_format", "format"},
         {"json_schema", "format"},
         {"chat_template_kwargs", "think"},
         {"reasoning_effort", "think"}};
  for (const auto& [name, openai] : names) own[openai] = std::string("options.") + name;
  Json result = Json::object();
  for (const char* same : {"messages", "tools"}) {
    if (body.contains(same)) result[same] = body[same];
  }
  if (const auto think = body.find("think"); think != body.end() && !think->is_null()) {
    if (!think->is_boolean() && !think->is_string()) throw ApiError(400, "think must be true, false or an effort", "think");
    result["chat_template_kwargs"] = {{"enable_thinking", *think != false}};
    if (think->is_string()) result["reasoning_effort"] = *think;
  }
  if (const auto format = body.find("format"); format != body.end() && !format->is_null() && *format != "") {
    if (*format == "json")
      result["response_format"] = {{"type", "json_object"}};
    else if (format->is_object())
      result["json_schema"] = *format;
    else
      throw ApiError(400, "format must be \"json\" or a JSON schema", "format");
  }
  if (const auto images = body.find("images"); images != body.end() && !images->is_null() && !images->empty()) {
    throw ApiError(400, "images: this model reads text only", "images");
  }
  const auto options = body.find("options");
  if (options == body.end() || options->is_null()) return result;
  if (!options->is_object()) throw ApiError(400, "options must be an object", "options");
  for (const auto& [key, value] : options->items()) {
    const auto found = std::ranges::find_if(names, [&](const auto& pair) { return key == pair.first; });
    if (found != names.end())
      result[found->second] = value;
    else if (key != "num_predict")
      log_info("option \"{}\" is not known and ignored", printable(key));
    else if (!value.is_number_integer())
      throw ApiError(400, "options.num_predict must be an integer", "options.num_predict");
    else if (value.get<double>() >= 0)  // -1 and -2: until the end
      result["max_tokens"] = value;
  }
  return result;
}

void begin_chat(Call& call, const std::shared_ptr<ServedModel>& model, const Json& body, const Json& openai, bool chat) {
  auto [request, reading] = read_chat(call, openai, *model);
  TextAnswer::begin(call, model, {std::move(request)}, reading, flag(body, "stream", true), std::make_unique<LineFormat>(chat));
}

void chat(Call& call) {
  const Json body = call.body();
  begin_chat(call, ollama_model(call, body), body, call.translated(body, translated), true);
}

void generate(Call& call) {
  const Json body = call.body();
  const std::shared_ptr<ServedModel> model = ollama_model(call, body);
  const Json prompt = body.value("prompt", Json(""));
  if (!prompt.is_string()) throw ApiError(400, "prompt must be a string", "prompt");
  Json openai = call.translated(body, translated);
  if (prompt == "") {  // how Ollama's clients load a model
    return send_json(*call.response, {{"model", model->name},
                                      {"created_at", utc_timestamp(call.service.options().clock->unix_time())},
                                      {"response", ""},
                                      {"done", true},
                                      {"done_reason", "load"}});
  }
  const bool raw = flag(body, "raw", false);
  for (const char* name : {"template", "suffix", "context"}) {
    if (body.contains(name) && !body[name].is_null() && !body[name].empty() && body[name] != "")
      throw ApiError(400, fmt::format("{} is not supported", name), name);
  }
  if (raw || !model->loaded.chat_template) {
    engine::Request request = read_request(openai, *model);
    request.grammar = structure_of(openai, *model);
    request.prompt = encode_within("prompt", model->context(), [&](size_t limit) {
      return model->loaded.tokenizer->encode(prompt.get_ref<const std::string&>(), {.parse_special = true, .limit = limit});
    });
    request.scope = call.scope();
    return TextAnswer::begin(call, model, {std::move(request)}, std::nullopt, flag(body, "stream", true), std::make_unique<LineFormat>(false));
  }
  Json messages = Json::array();
  if (body.contains("system") && !body["system"].is_null()) {
    messages.push_back({{"role", "system"}, {"content", body["system"]}});
    call.names["messages[0]"] = "system";
  }
  call.names["messages"] = "prompt";
  messages.push_back({{"role", "user"}, {"content", prompt}});
  openai["messages"] = messages;
  begin_chat(call, model, body, openai, false);
}

Json details(const ServedModel& model) {
  const double parameters = static_cast<double>(model.parameters());
  const double bits = 8 * static_cast<double>(model.loaded.file_bytes) / std::max(1.0, parameters);
  return {{"parent_model", ""},
          {"format", model.loaded.name.ends_with(".gguf") ? "gguf" : "safetensors"},
          {"family", model.family()},
          {"families", Json::array({model.family()})},
          {"parameter_size", parameters >= 1e9 ? fmt::format("{:.1f}B", parameters / 1e9) : fmt::format("{:.0f}M", parameters / 1e6)},
          {"quantization_level", fmt::format("{:.1f} bits per weight", bits)}};
}

// Of a model that is not in memory less is known.
Json entry(const ModelCatalog::Listing& listing) {
  return {{"name", listing.name},       {"model", listing.name}, {"modified_at", utc_timestamp(listing.created)},
          {"size", listing.file_bytes}, {"digest", ""},          {"details", listing.model ? details(*listing.model) : Json::object()}};
}

void tags(Call& call) {
  Json models = Json::array();
  for (const auto& listing : call.service.catalog().list()) models.push_back(entry(listing));
  send_json(*call.response, {{"models", models}});
}

void running(Call& call) {
  Json models = Json::array();
  for (const auto& listing : call.service.catalog().list()) {
    if (!listing.model) continue;
    Json one = entry(listing);
    one["size_vram"] = 0;
    one["context_length"] = listing.model->context();
    models.push_back(std::move(one));
  }
  send_json(*call.response, {{"models", models}});
}

void show(Call& call) {
  const std::shared_ptr<ServedModel> model = ollama_model(call, call.body());
  Json capabilities = Json::array({model->engine ? "completion" : "embedding"});
  if (model->tool_format) capabilities.push_back("tools");
  if (!model->reasoning.open.empty()) capabilities.push_back("thinking");
  send_json(*call.response, {{"modelfile", ""},
                             {"parameters", ""},
                             {"template", model->loaded.chat_template ? model->loaded.chat_template->source() : ""},
                             {"details", details(*model)},
                             {"model_info",
                              {{"general.architecture", model->family()},
                               {"general.parameter_count", model->parameters()},
                               {model->family() + ".context_length", model->trained_context()},
                               {model->family() + ".embedding_length", model->width()}}},
                             {"capabilities", capabilities}});
}

void version(Call& call) { send_json(*call.response, {{"version", call.service.options().version}}); }

}  // namespace

std::vector<Route> ollama_routes() {
  return {{"POST", "/api/generate", generate, true},
          {"POST", "/api/chat", chat, true},
          {"GET", "/api/tags", tags},
          {"POST", "/api/show", show},
          {"GET", "/api/ps", running},
          {"GET", "/api/version", version}};
}

}  // namespace frugal::serve
