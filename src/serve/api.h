// What every endpoint is made of: a request that was read, an error that becomes an answer, and the table of routes.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "serve/http/http.h"

namespace frugal::serve {

class Service;

enum class ErrorShape { openai, anthropic, ollama };

// An answer other than 200, in OpenAI's shape. `param` names the field at fault.
class ApiError : public std::runtime_error {
 public:
  ApiError(int status, const std::string& message, std::string param = {}, std::string code = {})
      : std::runtime_error(message), status(status), param(std::move(param)), code(std::move(code)) {}
  int status;
  std::string param, code;
};

inline constexpr const char* kTooLong = "context_length_exceeded";  // OpenAI's code, by which clients know it

// What the client calls a field that has another name in OpenAI's chat; or its place, "messages[3]".
using FieldNames = std::map<std::string, std::string>;

// One request on its way: a GET on the I/O thread, for it is quick, others on a worker.
struct Call {
  Service& service;
  HttpRequest request;
  std::shared_ptr<HttpResponse> response;
  ErrorShape error_shape = ErrorShape::openai;
  FieldNames names = {};  // of a body that is translated

  Json body() const;  // a JSON object; throws ApiError{400}
  // The body in OpenAI's words, by a protocol's `translate`: errors behind it are told in the names that this fills in.
  Json translated(const Json& body, Json (*translate)(const Json& body, FieldNames& own));
  // The API key, "" without one. Of cached beginnings: what one key sent is not found by another.
  std::string scope() const;
};

// Answers, now or later, or throws ApiError or Error.
using Endpoint = std::function<void(Call& call)>;

struct Route {
  std::string method, path;
  Endpoint endpoint;
  bool counts = false;  // generates or embeds: towards the limit of requests per key
};

// Each file of endpoints has its rows; service.cpp joins them.
std::vector<Route> openai_routes();
std::vector<Route> responses_routes();
std::vector<Route> anthropic_routes();
std::vector<Route> ollama_routes();
std::vector<Route> token_routes();
std::vector<Route> embedding_routes();
std::vector<Route> status_routes();
std::vector<Route> page_routes();

void send_json(HttpResponse& response, const Json& body, int status = 200);
// Text for JSON and logs: invalid UTF-8 as U+FFFD.
std::string dump(const Json& value);
// 24 random hexadecimal digits.
std::string new_id();
// Whose clients ask for a path, and an error as they expect it, from one in OpenAI's shape.
ErrorShape shape_of(std::string_view path);
HttpAnswer shaped(HttpAnswer answer, ErrorShape shape);
// An exception as an answer: what the client did wrong in words, what went wrong here not.
HttpAnswer answer_of(const std::exception& error, ErrorShape shape, const FieldNames& names = {});
// Throws ApiError{400} naming `field` unless it is an id of the vocabulary.
int32_t token_id(std::string_view field, const Json& value, int64_t vocabulary);
// A member that is there and not null, or nullptr.
const Json* given(const Json& object, const char* name);
// Throws ApiError{400} that names the field: what it is, or must be, follows its name.
[[noreturn]] void refuse(std::string_view field, const std::string& rule);
// true or false; `otherwise` where it is absent or null. Throws ApiError{400} naming it.
bool flag(const Json& body, const std::string& field, bool otherwise);

}  // namespace frugal::serve
