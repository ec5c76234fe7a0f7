// Tokens of a text and back, in the dialects of vLLM and of llama.cpp, and what the chat template makes of a conversation.
#include "serve/chat.h"
#include "serve/service.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace frugal::serve {
namespace {

std::string text_field(const Json& body, const char* name) {
  if (!body[name].is_string()) throw ApiError(400, fmt::format("{} must be a string", name), name);
  return body[name].get<std::string>();
}

void tokenize(Call& call) {
  const Json body = call.body();
  const std::shared_ptr<ServedModel> model = call.service.model_of(body);
  const text::Tokenizer& tokenizer = *model->loaded.tokenizer;
  if (body.contains("content")) {  // llama.cpp
    const std::vector<int32_t> ids =
        tokenizer.encode(text_field(body, "content"), {.add_special = flag(body, "add_special", false), .parse_special = flag(body, "parse_special", true)});
    Json tokens = Json::array();
    const bool pieces = flag(body, "with_pieces", false);
    for (const int32_t id : ids) tokens.push_back(pieces ? Json{{"id", id}, {"piece", tokenizer.piece(id)}} : Json(id));
    return send_json(*call.response, {{"tokens", tokens}});
  }
  std::vector<int32_t> ids;
  if (body.contains("messages"))
    ids = chat_prompt(body, *model);
  else if (body.contains("prompt"))
    ids = tokenizer.encode(text_field(body, "prompt"), {.add_special = flag(body, "add_special_tokens", true), .parse_special = true});
  else
    throw ApiError(400, "prompt, messages or content is missing", "prompt");
  Json answer = {{"count", ids.size()}, {"max_model_len", model->context()}, {"tokens", ids}};
  if (flag(body, "return_token_strs", false)) {
    answer["token_strs"] = Json::array();
    for (const int32_t id : ids) answer["token_strs"].push_back(std::string(tokenizer.token_text(id)));
  }
  send_json(*call.response, answer);
}

void detokenize(Call& call) {
  const Json body = call.body();
  const std::shared_ptr<ServedModel> model = call.service.model_of(body);
  const text::Tokenizer& tokenizer = *model->loaded.tokenizer;
  const auto list = body.find("tokens");
  if (list == body.end() || !list->is_array()) throw ApiError(400, "tokens must be a list of token ids", "tokens");
  std::vector<int32_t> ids;
  for (const Json& id : *list) ids.push_back(token_id("tokens", id, tokenizer.vocab_size()));
  const std::string text = tokenizer.decode(ids);
  send_json(*call.response, {{"prompt", text}, {"content", text}});  // vLLM's name and llama.cpp's
}

void tokenizer_info(Call& call) {
  const std::shared_ptr<ServedModel> model = call.service.model("");
  const nn::LoadedModel& loaded = model->loaded;
  Json info = {{"tokenizer_class", "frugal"}, {"bos_token", loaded.bos_text}, {"eos_token", loaded.eos_text}};
  info["chat_template"] = loaded.chat_template ? Json(loaded.chat_template->source()) : Json(nullptr);
  info["vocab_size"] = loaded.tokenizer->vocab_size();
  send_json(*call.response, info);
}

void apply_template(Call& call) {
  const Json body = call.body();
  send_json(*call.response, {{"prompt", chat_text(body, *call.service.model_of(body))}});
}

}  // namespace

std::vector<Route> token_routes() {
  return {{"POST", "/tokenize", tokenize},
          {"POST", "/detokenize", detokenize},
          {"GET", "/tokenizer_info", tokenizer_info},
          {"POST", "/apply-template", apply_template},
          {"POST", "/v1/chat/completions/render", apply_template}};
}

}  // namespace frugal::serve
