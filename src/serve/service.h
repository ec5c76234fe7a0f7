// What answers: the models with their engines, and the threads that read requests for them. Everything is thread-safe.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/options.h"
#include "engine/engine.h"
#include "nn/loader.h"
#include "serve/api.h"
#include "text/grammar/matcher.h"

namespace frugal::serve {

// One model on the air.
struct ServedModel {
  std::string name;
  nn::LoadedModel loaded;
  std::unique_ptr<engine::Engine> engine;
  int64_t created = 0;
  RawOptions sampling;  // what the checkpoint asks for where a request says nothing

  // Ids of a conversation as the model's chat template writes it. Throws ApiError{400}.
  std::vector<int32_t> chat_prompt(const Json& body) const;
  std::string chat_text(const Json& body) const;  // the same as text

  // For a grammar, compiled if it is not known by this key.
  std::shared_ptr<const text::GrammarMatcher> matcher(const std::string& key, const std::function<std::shared_ptr<const text::Grammar>()>& compile);

 private:
  std::mutex mutex_;
  std::shared_ptr<const text::TokenBytes> token_bytes_;
  std::map<std::string, std::shared_ptr<const text::GrammarMatcher>> matchers_;
};

struct ServiceOptions {
  int workers = 2;                               // threads that parse, render and tokenize
  size_t most_queued = 256;                      // requests that wait for one of them,
  size_t most_queued_bytes = size_t{256} << 20;  // and their bodies
  double stuck_seconds = 10;                     // a step that takes longer than this is a hang
  std::string metrics_prefix = "frugal", version;
  const Clock* clock = &system_clock();
};

// Times in seconds, as Prometheus counts them.
class Histogram {
 public:
  explicit Histogram(std::vector<double> bounds) : bounds_(std::move(bounds)), counts_(bounds_.size() + 1) {}
  void add(double value);
  void write(std::string& out, const std::string& name, const std::string& labels) const;

 private:
  std::vector<double> bounds_;
  mutable std::mutex mutex_;
  std::vector<uint64_t> counts_;
  double sum_ = 0;
};

class Service {
 public:
  explicit Service(const ServiceOptions& options);
  ~Service();

  void add_model(std::string name, nn::LoadedModel loaded, const engine::EngineOptions& options);
  // The first one where `name` is empty; throws ApiError{404}.
  ServedModel& model(const std::string& name);
  ServedModel& model_of(const Json& body);  // its "model"
  const std::vector<std::unique_ptr<ServedModel>>& models() const { return models_; }

  // Work for a worker thread; it must not throw.
  void post(std::function<void()> task);
  // Of the I/O thread: finds the route and hands the request to a worker.
  void handle(HttpRequest&& request, std::shared_ptr<HttpResponse> response);
  void refuse_new_work() { draining_ = true; }
  bool draining() const { return draining_; }
  // Empty: well; else what is wrong.
  std::string problem() const;

  const ServiceOptions& options() const { return options_; }
  Histogram time_to_first_token, inter_token, whole_request, queue_time;

 private:
  void work();
  ServiceOptions options_;
  std::vector<std::unique_ptr<ServedModel>> models_;
  std::atomic<bool> draining_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> queue_;
  size_t queued_bytes_ = 0;
  bool ending_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace frugal::serve
