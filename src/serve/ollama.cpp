// Ollama's /api/generate, /api/chat, /api/tags, /api/show, /api/ps and /api/version: answers as lines of JSON, times in nanoseconds.
#include <algorithm>
#include <span>

#include "base/log.h"
#include "io/sha256.h"
#include "serve/chat.h"
#include "serve/fields.h"
#include "serve/structure.h"
#include "serve/text_answer.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace frugal::serve {

namespace {

std::string name_in(const Json& body) {
  const auto given = body.contains("model") ? body.find("model") : body.find("name");
  if (given == body.end() || !given->is_string()) throw ApiError(400, "model must be a string", "model");
  std::string name = given->get<std::string>();
  if (name.ends_with(":latest")) name.resize(name.size() - 7);
  return name;
}

}  // namespace

std::shared_ptr<ServedModel> ollama_model(Call& call, const Json& body) { return call.service.model(name_in(body)); }

namespace {

// Whose protocol this is: clients ask for at least a version of it.
constexpr const char* kOllamaVersion = "0.12.11";

int64_t nanoseconds(double seconds) { return static_cast<int64_t>(seconds * 1e9); }

class LineFormat final : public AnswerFormat {
 public:
  explicit LineFormat(bool chat) : chat_(chat) {}
  const char* content_type() const override { return "application/x-ndjson"; }
  std::string begin(const AnswerState&, size_t, const std::vector<engine::TokenInfo>&) override { return {}; }
  std::string piece(const AnswerState& state, size_t choice, const AnswerPiece& piece) override {
    const AnswerItem::Kind kind = state.choices[choice].items[piece.item].kind;
    const bool call = kind == AnswerItem::Kind::call;  // they come whole, their tokens as they are drawn
    if ((call || piece.text.empty()) && piece.tokens.empty()) return {};
    Json line = this->line(state, false);
    if (!call) add_text(line, kind, piece.text);
    if (!piece.tokens.empty()) line["logprobs"] = token_logprobs(state, piece.tokens);
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
    if (!choice.tokens.empty()) line["logprobs"] = token_logprobs(state, choice.tokens);
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
  log_unknown(body, {"model",  "name", "messages", "prompt",       "system",   "tools",  "think",   "format",     "images",   "options",
                     "stream", "raw",  "logprobs", "top_logprobs", "template", "suffix", "context", "keep_alive", "truncate", "shift"});
  Json result = Json::object();
  for (const char* same : {"messages", "tools", "logprobs", "top_logprobs"}) {
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
  const auto refuse_images = [](const Json& holder, const std::string& where) {
    if (const Json* images = given(holder, "images"); images && !images->empty()) refuse(where + "images", ": this model reads text only");
  };
  refuse_images(body, "");
  if (const Json* messages = given(body, "messages"); messages && messages->is_array()) {
    for (size_t i = 0; i < messages->size(); ++i) refuse_images((*messages)[i], fmt::format("messages[{}].", i));
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

// A request without anything to answer loads a model, and with keep_alive 0 lets it go.
void load_or_unload(Call& call, const Json& body, bool chat) {
  const Json* const keep = given(body, "keep_alive");
  const bool unload = keep && (*keep == 0 || *keep == "0" || *keep == "0s" || *keep == "0m" || *keep == "0h");
  ModelCatalog& catalog = call.service.catalog();
  const std::string name = unload ? catalog.resolve(name_in(body)) : ollama_model(call, body)->name;
  if (unload) catalog.unload(name);
  Json answer = {
      {"model", name}, {"created_at", utc_timestamp(call.service.options().clock->unix_time())}, {"done", true}, {"done_reason", unload ? "unload" : "load"}};
  if (chat)
    answer["message"] = {{"role", "assistant"}, {"content", ""}};
  else
    answer["response"] = "";
  send_json(*call.response, answer);
}

void begin_chat(Call& call, const std::shared_ptr<ServedModel>& model, const Json& body, const Json& openai, bool chat) {
  auto [request, reading] = read_chat(call, openai, *model);
  request.top_logprobs = asked_logprobs(openai);
  TextAnswer::begin(call, model, {std::move(request)}, reading, flag(body, "stream", true), std::make_unique<LineFormat>(chat));
}

void chat(Call& call) {
  const Json body = call.body();
  if (const Json* messages = given(body, "messages"); messages && messages->is_array() && messages->empty()) return load_or_unload(call, body, true);
  begin_chat(call, ollama_model(call, body), body, call.translated(body, translated), true);
}

void generate(Call& call) {
  const Json body = call.body();
  const Json prompt = body.value("prompt", Json(""));
  if (!prompt.is_string()) throw ApiError(400, "prompt must be a string", "prompt");
  if (prompt == "") return load_or_unload(call, body, false);
  const std::shared_ptr<ServedModel> model = ollama_model(call, body);
  Json openai = call.translated(body, translated);
  const bool raw = flag(body, "raw", false);
  for (const char* name : {"template", "suffix", "context"}) {
    if (body.contains(name) && !body[name].is_null() && !body[name].empty() && body[name] != "")
      throw ApiError(400, fmt::format("{} is not supported", name), name);
  }
  if (raw || !model->loaded.chat_template) {
    engine::Request request = read_request(openai, *model);
    request.grammar = structure_of(openai, *model);
    request.top_logprobs = asked_logprobs(openai);
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

// All members are there, for typed clients, but of a model that is not in memory less is known.
Json details(const std::string& path, const ServedModel* model) {
  Json details = {{"parent_model", ""},   {"format", path.ends_with(".gguf") ? "gguf" : "safetensors"},
                  {"family", ""},         {"families", Json::array()},
                  {"parameter_size", ""}, {"quantization_level", ""}};
  if (!model) return details;
  const double parameters = static_cast<double>(model->parameters());
  const double bits = 8 * static_cast<double>(model->loaded.file_bytes) / std::max(1.0, parameters);
  details["family"] = model->family();
  details["families"] = Json::array({model->family()});
  details["parameter_size"] = parameters >= 1e9 ? fmt::format("{:.1f}B", parameters / 1e9) : fmt::format("{:.0f}M", parameters / 1e6);
  details["quantization_level"] = fmt::format("{:.1f} bits per weight", bits);
  return details;
}

Json entry(const ModelCatalog::Listing& listing) {
  // Tells models apart as Ollama's does, of which clients show twelve digits; the weights are not read for it.
  const std::string identity = fmt::format("{}:{}", listing.path, listing.file_bytes);
  return {{"name", listing.name},
          {"model", listing.name},
          {"modified_at", utc_timestamp(listing.created)},
          {"size", listing.file_bytes},
          {"digest", io::sha256_hex(std::as_bytes(std::span(identity)))},
          {"details", details(listing.path, listing.model.get())}};
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
    one["expires_at"] = "2300-01-01T00:00:00Z";  // no time is set, which Ollama tells by one that is far
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
                             {"details", details(model->loaded.name, model.get())},
                             {"model_info",
                              {{"general.architecture", model->family()},
                               {"general.parameter_count", model->parameters()},
                               {model->family() + ".context_length", model->trained_context()},
                               {model->family() + ".embedding_length", model->width()}}},
                             {"capabilities", capabilities}});
}

void version(Call& call) { send_json(*call.response, {{"version", kOllamaVersion}}); }

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
