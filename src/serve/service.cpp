#include "serve/service.h"

#include <algorithm>
#include <random>

#include "base/log.h"
#include "engine/model_sampling.h"
#include "text/chat_template.h"
#include "text/chat_tokens.h"

namespace frugal::serve {
namespace {

constexpr size_t kMostMessages = 10'000;

// Seconds, as vLLM's buckets.
const std::vector<double> kFirstToken = {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560};
const std::vector<double> kBetweenTokens = {.01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80};
const std::vector<double> kRequest = {.3, .5, .8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};

// Parts of a message as one text: what templates of text models take.
Json with_joined_parts(const Json& message, size_t index) {
  Json result = message;
  const auto refuse = [&](const std::string& rule) {
    const std::string where = fmt::format("messages[{}]", index);
    throw ApiError(400, where + rule, where);
  };
  if (!message.is_object()) refuse(" must be an object");
  const auto role = message.find("role");
  static const std::vector<std::string> roles = {"system", "user", "assistant", "tool", "developer"};
  if (role == message.end() || !role->is_string() || std::ranges::find(roles, role->get<std::string>()) == roles.end()) {
    refuse(".role must be system, user, assistant, tool or developer");
  }
  if (*role == "developer") result["role"] = "system";
  const auto content = message.find("content");
  if (content == message.end() || content->is_null()) {
    if (*role != "assistant") refuse(".content must be a string");
    result["content"] = "";
  } else if (content->is_array()) {
    std::string text;
    for (const Json& part : *content) {
      if (!part.is_object() || !part.contains("type") || part["type"] != "text" || !part.contains("text") || !part["text"].is_string()) {
        refuse(fmt::format(".content has the part {}: this model reads text only", printable(dump(part))));
      }
      text += part["text"].get<std::string>();
    }
    result["content"] = text;
  } else if (!content->is_string()) {
    refuse(".content must be a string or a list of parts");
  }
  return result;
}

std::vector<text::RenderedSegment> rendered(const nn::LoadedModel& model, const Json& body) {
  if (!model.chat_template) {
    throw ApiError(
        400,
        model.chat_template_problem.empty() ? "the model has no chat template" : "the model's chat template cannot be used: " + model.chat_template_problem,
        "messages");
  }
  const auto messages = body.find("messages");
  if (messages == body.end() || !messages->is_array() || messages->empty()) throw ApiError(400, "messages must be a list of at least one message", "messages");
  if (messages->size() > kMostMessages)
    throw ApiError(400, fmt::format("messages has {} entries, {} are allowed", messages->size(), kMostMessages), "messages");
  Json clean = Json::array();
  for (size_t i = 0; i < messages->size(); ++i) clean.push_back(with_joined_parts((*messages)[i], i));
  text::RenderOptions options;
  options.add_generation_prompt = flag(body, "add_generation_prompt", true);
  options.bos_token = model.bos_text;
  options.eos_token = model.eos_text;
  if (const auto extra = body.find("chat_template_kwargs"); extra != body.end() && !extra->is_null()) {
    if (!extra->is_object()) throw ApiError(400, "chat_template_kwargs must be an object", "chat_template_kwargs");
    static const std::vector<std::string> own = {"messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token"};
    for (const auto& [key, value] : extra->items()) {
      if (std::ranges::find(own, key) != own.end()) throw ApiError(400, fmt::format("chat_template_kwargs must not set {}", key), "chat_template_kwargs");
    }
    options.extra = *extra;
  }
  return model.chat_template->render(clean, options);
}

}  // namespace

Json Call::body() const {
  Json value;
  try {
    value = parse_json(request.body, "the request's body", {.max_bytes = size_t{8} << 20, .max_depth = 64});
  } catch (const Error& error) {
    throw ApiError(400, error.what());
  }
  if (!value.is_object()) throw ApiError(400, "the request's body must be a JSON object");
  return value;
}

std::string dump(const Json& value) { return value.dump(-1, ' ', false, Json::error_handler_t::replace); }

void send_json(HttpResponse& response, const Json& body, int status) { response.send(status, {{"Content-Type", "application/json"}}, dump(body)); }

std::string new_id() {
  static thread_local std::mt19937_64 random{(uint64_t{std::random_device{}()} << 32) | std::random_device{}()};
  return fmt::format("{:016x}{:08x}", random(), static_cast<uint32_t>(random()));
}

bool flag(const Json& body, const std::string& field, bool otherwise) {
  const auto value = body.find(field);
  if (value == body.end() || value->is_null()) return otherwise;
  if (!value->is_boolean()) throw ApiError(400, field + " must be true or false", field);
  return value->get<bool>();
}

std::string Call::scope() const {
  const std::string* const key = request.header("authorization");
  const std::string* const other = request.header("x-api-key");
  return key ? *key : other ? *other : "";
}

HttpAnswer answer_of(const std::exception& error, ErrorShape shape) {
  HttpAnswer answer;
  if (const auto* api = dynamic_cast<const ApiError*>(&error)) {
    answer = error_answer(api->status, api->what(), api->param, api->code);
  } else if (dynamic_cast<const Json::exception*>(&error)) {  // a value of another type than all that is above expected
    answer = error_answer(400, fmt::format("the request has a value of a wrong type: {}", error.what()));
  } else if (dynamic_cast<const engine::Overloaded*>(&error)) {
    answer = error_answer(503, error.what(), {}, "overloaded");
  } else if (const auto* ours = dynamic_cast<const Error*>(&error);
             ours && (ours->kind() == ErrorKind::invalid_input || ours->kind() == ErrorKind::unsupported)) {
    answer = error_answer(400, error.what());
  } else if ((ours && ours->kind() == ErrorKind::out_of_memory) || dynamic_cast<const std::bad_alloc*>(&error)) {
    answer = error_answer(503, "there is not enough memory for this request");
  } else {
    log_warning("a request failed: {}", printable(error.what(), 500));
    answer = error_answer(500, "internal error");
  }
  if (answer.status == 503) answer.headers.emplace_back("Retry-After", "1");
  if (shape == ErrorShape::openai) return answer;
  Json body = parse_json(answer.body, "error");
  if (shape == ErrorShape::anthropic)
    body = {{"type", "error"}, {"error", body["error"]}};
  else
    body = {{"error", body["error"]["message"]}};
  answer.body = dump(body);
  return answer;
}

std::vector<int32_t> ServedModel::chat_prompt(const Json& body) const { return text::encode_segments(*loaded.tokenizer, rendered(loaded, body)); }
std::string ServedModel::chat_text(const Json& body) const { return text::joined(rendered(loaded, body)); }

void Histogram::add(double value) {
  const std::lock_guard lock(mutex_);
  ++counts_[static_cast<size_t>(std::ranges::lower_bound(bounds_, value) - bounds_.begin())];
  sum_ += value;
}

void Histogram::write(std::string& out, const std::string& name, const std::string& labels) const {
  const std::lock_guard lock(mutex_);
  out += fmt::format("# TYPE {} histogram\n", name);
  uint64_t sum = 0;
  for (size_t i = 0; i < counts_.size(); ++i) {
    sum += counts_[i];
    out += fmt::format("{}_bucket{{{},le=\"{}\"}} {}\n", name, labels, i < bounds_.size() ? fmt::format("{}", bounds_[i]) : "+Inf", sum);
  }
  out += fmt::format("{}_sum{{{}}} {}\n{}_count{{{}}} {}\n", name, labels, sum_, name, labels, sum);
}

Service::Service(const ServiceOptions& options)
    : time_to_first_token(kFirstToken), inter_token(kBetweenTokens), whole_request(kRequest), queue_time(kRequest), options_(options) {
  for (int i = 0; i < options.workers; ++i) threads_.emplace_back([this] { work(); });
}

Service::~Service() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Service::work() {
  for (;;) {
    std::function<void()> task;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return ending_ || !queue_.empty(); });
      if (ending_) return;
      task = std::move(queue_.front());
      queue_.pop_front();
    }
    task();
  }
}

void Service::post(std::function<void()> task) {
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back(std::move(task));
  }
  wake_.notify_one();
}

void Service::add_model(std::string name, nn::LoadedModel loaded, const engine::EngineOptions& options) {
  for (const auto& other : models_) {
    if (other->name == name) fail(ErrorKind::invalid_input, "two models are called \"{}\": name them, as in a=path1 b=path2", printable(name));
  }
  auto model = std::make_unique<ServedModel>();
  model->sampling = engine::sampling_defaults(loaded);
  model->name = std::move(name);
  model->loaded = std::move(loaded);
  model->engine = std::make_unique<engine::Engine>(model->loaded, options);
  model->created = options_.clock->unix_time();
  models_.push_back(std::move(model));
}

ServedModel& Service::model(const std::string& name) {
  if (name.empty()) return *models_.front();
  for (const auto& model : models_) {
    if (model->name == name) return *model;
  }
  std::string names;
  for (const auto& model : models_) names += (names.empty() ? "" : ", ") + model->name;
  throw ApiError(404, fmt::format("there is no model \"{}\" here; there is {}", printable(name), names), "model", "model_not_found");
}

ServedModel& Service::model_of(const Json& body) {
  const auto name = body.find("model");
  if (name == body.end() || name->is_null()) return model("");
  if (!name->is_string()) throw ApiError(400, "model must be a string", "model");
  return model(name->get<std::string>());
}

std::string Service::problem() const {
  for (const auto& model : models_) {
    const double age = model->engine->step_age();
    if (age > std::max(options_.stuck_seconds, 4 * model->engine->longest_step())) return fmt::format("{}: the last step began {:.0f} s ago", model->name, age);
  }
  return {};
}

namespace {

void answer(const Endpoint& endpoint, Call& call) {
  try {
    endpoint(call);
  } catch (const std::exception& error) {
    try {
      call.response->send(answer_of(error, call.error_shape));
    } catch (...) {  // without memory even for that: the HTTP layer answers 500 when the response is let go
    }
  }
}

const std::vector<Route>& all_routes() {
  static const std::vector<Route> routes = [] {
    std::vector<Route> all;
    for (const auto& some : {openai_routes(), anthropic_routes(), ollama_routes(), token_routes(), status_routes()})
      all.insert(all.end(), some.begin(), some.end());
    return all;
  }();
  return routes;
}

ErrorShape shape_of(std::string_view path) {
  return path.starts_with("/api/") ? ErrorShape::ollama : path.starts_with("/v1/messages") ? ErrorShape::anthropic : ErrorShape::openai;
}

}  // namespace

void Service::handle(HttpRequest&& request, std::shared_ptr<HttpResponse> response) {
  const Route* found = nullptr;
  std::string allowed;
  std::string path = request.path;
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  for (const Route& route : all_routes()) {
    const bool prefix = route.path.ends_with("/*") && path.starts_with(route.path.substr(0, route.path.size() - 1));
    if (route.path != path && !prefix) continue;
    if (route.method == (request.method == "HEAD" ? "GET" : request.method)) found = &route;
    allowed += (allowed.empty() ? "" : ", ") + route.method;
  }
  const ErrorShape shape = shape_of(path);
  const auto refuse = [&](const ApiError& error) { response->send(answer_of(error, shape)); };
  if (!found && allowed.empty()) return refuse(ApiError(404, "there is no such endpoint"));
  if (!found) {
    HttpAnswer refusal = answer_of(ApiError(405, "this endpoint takes " + allowed), shape);
    refusal.headers.emplace_back("Allow", allowed);
    return response->send(std::move(refusal));
  }
  request.path = path;
  if (found->method == "GET") {  // quick, and wanted most when the workers are busy
    Call call{*this, std::move(request), std::move(response), shape};
    return answer(found->endpoint, call);
  }
  if (draining_) return refuse(ApiError(503, "the server is shutting down"));
  const size_t bytes = request.body.size();
  {
    const std::lock_guard lock(mutex_);
    if (queue_.size() < options_.most_queued && queued_bytes_ + bytes <= options_.most_queued_bytes) {
      queued_bytes_ += bytes;
      queue_.push_back([this, bytes, endpoint = &found->endpoint, call = std::make_shared<Call>(Call{*this, std::move(request), response, shape})] {
        answer(*endpoint, *call);
        const std::lock_guard done(mutex_);
        queued_bytes_ -= bytes;
      });
      wake_.notify_one();
      return;
    }
  }
  refuse(ApiError(503, "too many requests wait already", {}, "overloaded"));
}

}  // namespace frugal::serve
