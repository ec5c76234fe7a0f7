#include "serve/service.h"

#include <algorithm>
#include <random>

#include "base/log.h"

namespace frugal::serve {
namespace {

constexpr double kStandstill = 1;

// Seconds, as vLLM's buckets.
const std::vector<double> kFirstToken = {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560};
const std::vector<double> kBetweenTokens = {.01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80};
const std::vector<double> kRequest = {.3, .5, .8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};

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

const Json* given(const Json& object, const char* name) {
  const auto found = object.find(name);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

void refuse(std::string_view field, const std::string& rule) { throw ApiError(400, std::string(field) + rule, std::string(field)); }

bool flag(const Json& body, const std::string& field, bool otherwise) {
  const Json* const value = given(body, field.c_str());
  if (!value) return otherwise;
  if (!value->is_boolean()) refuse(field, " must be true or false");
  return value->get<bool>();
}

Json Call::translated(const Json& body, Json (*translate)(const Json& body, FieldNames& own)) {
  FieldNames own;
  Json result = translate(body, own);
  names = std::move(own);
  return result;
}

std::string Call::scope() const {
  const std::string* const bearer = request.header("authorization");
  const std::string* const key = request.header("x-api-key");
  if (bearer) return bearer->starts_with("Bearer ") ? bearer->substr(7) : *bearer;
  return key ? *key : "";
}

ErrorShape shape_of(std::string_view path) {
  return path.starts_with("/api/") ? ErrorShape::ollama : path.starts_with("/v1/messages") ? ErrorShape::anthropic : ErrorShape::openai;
}

HttpAnswer shaped(HttpAnswer answer, ErrorShape shape) {
  if (shape == ErrorShape::openai || answer.status < 400) return answer;
  Json error = parse_json(answer.body, "error")["error"];
  if (shape == ErrorShape::anthropic) {
    const int status = answer.status;
    if (status == 413 || status >= 500) error["type"] = status == 413 ? "request_too_large" : status == 503 ? "overloaded_error" : "api_error";
    answer.body = dump({{"type", "error"}, {"error", error}});
  } else {
    answer.body = dump({{"error", error["message"]}});
  }
  return answer;
}

namespace {

bool is_word(char c) { return c == '_' || std::isalnum(static_cast<unsigned char>(c)); }

// A text that begins with a field, or is one, in the client's words.
std::string renamed(const std::string& text, const FieldNames& names) {
  const FieldNames::value_type* longest = nullptr;
  for (const auto& name : names) {
    const bool begins = text.starts_with(name.first) && (text.size() == name.first.size() || !is_word(text[name.first.size()]));
    if (begins && (!longest || name.first.size() > longest->first.size())) longest = &name;
  }
  return longest ? longest->second + text.substr(longest->first.size()) : text;
}

}  // namespace

HttpAnswer answer_of(const std::exception& error, ErrorShape shape, const FieldNames& names) {
  HttpAnswer answer;
  if (const auto* api = dynamic_cast<const ApiError*>(&error)) {
    answer = error_answer(api->status, renamed(api->what(), names), renamed(api->param, names), api->code);
  } else if (dynamic_cast<const Json::exception*>(&error)) {  // a value of another type than all that is above expected
    answer = error_answer(400, fmt::format("the request has a value of a wrong type: {}", error.what()));
  } else if (dynamic_cast<const engine::PromptTooLong*>(&error)) {
    answer = error_answer(400, error.what(), {}, kTooLong);
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
  if (answer.status == 503 || answer.status == 429) answer.headers.emplace_back("Retry-After", "1");
  return shaped(std::move(answer), shape);
}

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
    : time_to_first_token(kFirstToken),
      inter_token(kBetweenTokens),
      whole_request(kRequest),
      queue_time(kRequest),
      options_(options),
      keys_(options.most_per_key),
      catalog_(*options.clock) {
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

std::shared_ptr<ServedModel> Service::model(const std::string& name) {
  const std::string resolved = catalog_.resolve(name);
  std::shared_ptr<ServedModel> model = catalog_.find(resolved);
  if (!model) throw ModelAbsent(resolved);
  return model;
}

std::shared_ptr<ServedModel> Service::model_of(const Json& body) {
  const auto name = body.find("model");
  if (name == body.end() || name->is_null()) return model("");
  if (!name->is_string()) throw ApiError(400, "model must be a string", "model");
  return model(name->get<std::string>());
}

void Service::keep_alive(const std::shared_ptr<EventStream>& stream) {
  const std::lock_guard lock(mutex_);
  streams_.push_back(stream);
}

void Service::ping_silent_streams() {
  std::vector<std::shared_ptr<EventStream>> streams;
  {
    const std::lock_guard lock(mutex_);
    std::erase_if(streams_, [](const auto& stream) { return stream.expired(); });
    for (const auto& stream : streams_) streams.push_back(stream.lock());
  }
  for (const auto& stream : streams) {
    if (stream) stream->ping();
  }
}

void Service::watch() {
  const double now = options_.clock->seconds();
  if (watched_ >= 0 && now - watched_ > kStandstill) resumed_ = now;
  watched_ = now;
}

std::optional<Service::Hang> Service::hang() const {
  const double now = options_.clock->seconds();
  const double awake = watched_ >= 0 && now - watched_ > kStandstill ? 0 : now - resumed_;
  std::optional<Hang> longest;
  for (const ModelCatalog::Listing& listing : catalog_.list()) {
    const auto look = [&](const auto& what) {
      if (!what) return;
      const double age = std::min(what->step_age(), awake);
      if (age > std::max(options_.stuck_seconds, 4 * what->longest_step()) && (!longest || age > longest->seconds)) longest = {listing.name, age};
    };
    if (!listing.model) continue;
    look(listing.model->engine);
    look(listing.model->embedder);
  }
  return longest;
}

bool Service::take(size_t bytes, std::function<void()> task) {
  const std::lock_guard lock(mutex_);
  if (queue_.size() >= options_.most_queued || queued_bytes_ + bytes > options_.most_queued_bytes) return false;
  queued_bytes_ += bytes;
  queue_.push_back([this, bytes, task = std::move(task)] {
    task();
    const std::lock_guard done(mutex_);
    queued_bytes_ -= bytes;
  });
  wake_.notify_one();
  return true;
}

void Service::answer(const Endpoint& endpoint, const std::shared_ptr<Call>& call) {
  try {
    try {
      endpoint(*call);
    } catch (const ModelAbsent& absent) {
      if (++waiting_for_models_ > options_.most_queued) {
        --waiting_for_models_;
        throw ApiError(503, "too many requests wait for models already", {}, "overloaded");
      }
      catalog_.load(absent.name, [this, endpoint = &endpoint, call](std::shared_ptr<ServedModel> model, const std::exception_ptr& error) {
        --waiting_for_models_;
        // The model stays at least until the endpoint has it.
        post([this, endpoint, call, model, error] {
          if (!error) return answer(*endpoint, call);
          answer([&](Call&) { std::rethrow_exception(error); }, call);
        });
      });
    }
  } catch (const std::exception& error) {
    try {
      call->response->send(answer_of(error, call->error_shape, call->names));
    } catch (...) {  // without memory even for that: the HTTP layer answers 500 when the response is let go
    }
  }
}

namespace {

const std::vector<Route>& all_routes() {
  static const std::vector<Route> routes = [] {
    std::vector<Route> all;
    for (const auto& some :
         {openai_routes(), responses_routes(), anthropic_routes(), ollama_routes(), embedding_routes(), token_routes(), status_routes(), page_routes()})
      all.insert(all.end(), some.begin(), some.end());
    return all;
  }();
  return routes;
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
  const auto call = std::make_shared<Call>(Call{*this, std::move(request), response, shape});
  if (found->method == "GET") return answer(found->endpoint, call);  // quick, and wanted most when the workers are busy
  if (draining_) return refuse(ApiError(503, "the server is shutting down"));
  try {
    if (found->counts) call->response = keys_.admit(call->scope(), response);
  } catch (const ApiError& error) {
    return refuse(error);
  }
  if (!take(call->request.body.size(), [this, endpoint = &found->endpoint, call] { answer(*endpoint, call); }))
    refuse(ApiError(503, "too many requests wait already", {}, "overloaded"));
}

}  // namespace frugal::serve
