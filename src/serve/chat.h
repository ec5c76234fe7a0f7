// A conversation as a request to the engine: messages, tools, reasoning and the form of the answer, from a body in OpenAI's words.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "engine/request.h"
#include "serve/service.h"
#include "text/answer_parser.h"

namespace frugal::serve {

struct ChatRequest {
  engine::Request request;
  std::optional<text::AnswerParserOptions> reading;  // how the answer is to be read; nothing: all of it is text
};

// All of the body. Throws ApiError{400} that names the field.
ChatRequest read_chat(Call& call, const Json& body, ServedModel& model);

// Log-probabilities that a chat asks for: of so many of the likeliest tokens, -1: none. Throws ApiError{400}.
int64_t asked_logprobs(const Json& body);

// What the model's template makes of the messages and tools. Throws ApiError{400}.
std::vector<int32_t> chat_prompt(const Json& body, const ServedModel& model);
std::string chat_text(const Json& body, const ServedModel& model);

}  // namespace frugal::serve
