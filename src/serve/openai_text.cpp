// OpenAI's /v1/completions and /v1/chat/completions.
#include "serve/fields.h"
#include "serve/text_answer.h"
#include "text/tokenizer.h"

namespace frugal::serve {
namespace {

constexpr size_t kMostPrompts = 64;

TextForm form_of(const Json& body) {
  TextForm form;
  form.stream = body.value("stream", Json(false)) == true;
  if (const auto options = body.find("stream_options"); options != body.end() && options->is_object()) {
    form.include_usage = options->value("include_usage", Json(false)) == true;
  }
  return form;
}

// The scope of cached beginnings: what one API key sent is not found by another.
std::string scope_of(const HttpRequest& request) {
  const std::string* const key = request.header("authorization");
  return key ? *key : "";
}

void chat(Call& call) {
  const Json body = call.body();
  ServedModel& model = call.service.model_of(body);
  engine::Request request = read_request(body, model.loaded);
  TextForm form = form_of(body);
  form.chat = true;
  if (const auto logprobs = body.find("logprobs"); logprobs != body.end() && !logprobs->is_null()) {
    if (!logprobs->is_boolean()) throw ApiError(400, "logprobs must be true or false; top_logprobs says how many", "logprobs");
    if (*logprobs == true) form.top_logprobs = body.value("top_logprobs", Json(0)).is_null() ? 0 : body.value("top_logprobs", 0);
  }
  if (form.top_logprobs < 0 && body.contains("top_logprobs") && !body["top_logprobs"].is_null() && body["top_logprobs"] != 0) {
    throw ApiError(400, "top_logprobs needs logprobs", "top_logprobs");
  }
  for (const char* field : {"prompt", "echo"}) {
    if (body.contains(field) && !body[field].is_null()) throw ApiError(400, fmt::format("{} is of /v1/completions; a conversation has messages", field), field);
  }
  if (request.max_tokens == 0) throw ApiError(400, "max_tokens must be at least 1", "max_tokens");
  request.prompt = model.chat_prompt(body);
  request.top_logprobs = form.top_logprobs;
  request.scope = scope_of(call.request);
  TextAnswer::begin(call, model, {std::move(request)}, std::move(form));
}

std::vector<int32_t> ids_of(const Json& list, const text::Tokenizer& tokenizer) {
  std::vector<int32_t> ids;
  for (const Json& id : list) {
    if (!id.is_number_integer() || id.get<double>() < 0 || id.get<double>() >= tokenizer.vocab_size()) {
      throw ApiError(400, fmt::format("prompt has the token id {}, ids are 0..{}", printable(dump(id)), tokenizer.vocab_size() - 1), "prompt");
    }
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

// A text, a list of texts, a list of ids, or a list of lists of ids.
std::vector<std::vector<int32_t>> prompts_of(const Json& body, const text::Tokenizer& tokenizer) {
  const auto found = body.find("prompt");
  if (found == body.end() || found->is_null()) throw ApiError(400, "prompt is missing", "prompt");
  const Json& prompt = *found;
  const auto from_text = [&](const Json& text) { return tokenizer.encode(text.get_ref<const std::string&>()); };
  if (prompt.is_string()) return {from_text(prompt)};
  if (!prompt.is_array() || prompt.empty()) throw ApiError(400, "prompt must be a text, token ids, or a list of texts or of lists of token ids", "prompt");
  if (prompt.front().is_number()) return {ids_of(prompt, tokenizer)};
  if (prompt.size() > kMostPrompts) throw ApiError(400, fmt::format("prompt has {} entries, {} are allowed", prompt.size(), kMostPrompts), "prompt");
  std::vector<std::vector<int32_t>> prompts;
  for (const Json& one : prompt) {
    if (one.is_string() != prompt.front().is_string() || (!one.is_string() && !one.is_array())) {
      throw ApiError(400, "prompt must be a list of texts or a list of lists of token ids", "prompt");
    }
    prompts.push_back(one.is_string() ? from_text(one) : ids_of(one, tokenizer));
  }
  return prompts;
}

void complete(Call& call) {
  const Json body = call.body();
  ServedModel& model = call.service.model_of(body);
  const text::Tokenizer& tokenizer = *model.loaded.tokenizer;
  engine::Request request = read_request(body, model.loaded);
  TextForm form = form_of(body);
  form.echo = body.value("echo", Json(false)) == true;
  if (const auto logprobs = body.find("logprobs"); logprobs != body.end() && !logprobs->is_null()) {
    if (!logprobs->is_number_integer() || *logprobs < 0 || *logprobs > 20) throw ApiError(400, "logprobs must be an integer in 0..20", "logprobs");
    form.top_logprobs = logprobs->get<int64_t>();
  }
  for (const char* field : {"messages", "top_logprobs"}) {
    if (body.contains(field) && !body[field].is_null()) throw ApiError(400, fmt::format("{} is of /v1/chat/completions", field), field);
  }
  if (request.max_tokens < 0) request.max_tokens = 16;
  if (request.max_tokens == 0 && !form.echo) throw ApiError(400, "max_tokens of 0 needs echo", "max_tokens");
  request.top_logprobs = form.top_logprobs;
  request.prompt_logprobs = form.echo && form.top_logprobs >= 0;
  request.scope = scope_of(call.request);
  std::vector<engine::Request> requests;
  for (std::vector<int32_t>& prompt : prompts_of(body, tokenizer)) {
    requests.push_back(request);
    if (form.echo) form.prompts.push_back(tokenizer.decode(prompt, /*skip_special=*/true));
    requests.back().prompt = std::move(prompt);
  }
  if (static_cast<int64_t>(requests.size()) * request.choices > 64) throw ApiError(400, "prompts times n must be at most 64", "n");
  TextAnswer::begin(call, model, std::move(requests), std::move(form));
}

}  // namespace

std::vector<Route> text_routes() {
  return {
      {"POST", "/v1/chat/completions", chat}, {"POST", "/chat/completions", chat}, {"POST", "/v1/completions", complete}, {"POST", "/completions", complete}};
}

}  // namespace frugal::serve
