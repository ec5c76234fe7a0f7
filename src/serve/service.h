// What answers: the models, and the threads that read requests for them. Everything is thread-safe.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "serve/api.h"
#include "serve/catalog.h"
#include "serve/event_stream.h"
#include "serve/key_limit.h"

namespace frugal::serve {

struct ServiceOptions {
  int workers = 2;                               // threads that parse, render and tokenize
  size_t most_queued = 256;                      // requests that wait for one of them,
  size_t most_queued_bytes = size_t{256} << 20;  // and their bodies
  int64_t most_per_key = 0;                      // requests of one API key that generate or embed, at once; 0: any number
  double stuck_seconds = 9;                      // a step that takes longer than this, and than four times the longest so far, is a hang
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

struct ModelAbsent : std::exception {
  explicit ModelAbsent(std::string name) : name(std::move(name)) {}
  std::string name;
};

class Service {
 public:
  explicit Service(const ServiceOptions& options);
  ~Service();

  ModelCatalog& catalog() { return catalog_; }
  // For endpoints: the first one where `name` is empty. Throws ApiError{404}; and ModelAbsent where it is not in memory: the service loads it
  // and calls the endpoint again.
  std::shared_ptr<ServedModel> model(const std::string& name);
  std::shared_ptr<ServedModel> model_of(const Json& body);  // its "model"

  // Work for a worker thread; it must not throw.
  void post(std::function<void()> task);
  // Of the I/O thread: finds the route and hands the request to a worker.
  void handle(HttpRequest&& request, std::shared_ptr<HttpResponse> response);
  void refuse_new_work() { draining_ = true; }
  bool draining() const { return draining_; }
  // Pings the streams that were silent since the last time.
  void keep_alive(const std::shared_ptr<EventStream>& stream);
  void ping_silent_streams();
  // The step that takes longest of those that take too long: what is named hangs.
  struct Hang {
    std::string model;
    double seconds = 0;  // since it began
  };
  std::optional<Hang> hang() const;
  // Every 100 ms or so from the thread that serves: where it did not come for a second the whole process stood still, and no step is to blame.
  void watch();

  // What GET /v1/ledger answers; set before the first request.
  void set_ledger(Json ledger) { ledger_ = std::move(ledger); }
  const Json& ledger() const { return ledger_; }

  const ServiceOptions& options() const { return options_; }
  Histogram time_to_first_token, inter_token, whole_request, queue_time;

 private:
  void work();
  bool take(size_t bytes, std::function<void()> task);  // false: too much waits already
  void answer(const Endpoint& endpoint, const std::shared_ptr<Call>& call);
  ServiceOptions options_;
  KeyLimit keys_;
  Json ledger_ = {{"rows", Json::array()}};
  std::atomic<bool> draining_{false};
  std::atomic<double> watched_{-1}, resumed_{-1};  // seconds; -1: never
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> queue_;
  size_t queued_bytes_ = 0;
  std::atomic<size_t> waiting_for_models_{0};
  std::vector<std::weak_ptr<EventStream>> streams_;
  bool ending_ = false;
  std::vector<std::thread> threads_;
  ModelCatalog catalog_;  // the last one: it ends first, and its thread puts work into the queue
};

// The "model" or "name" of a request in Ollama's words; "name:latest" is "name". Throws ApiError{400, 404}.
std::shared_ptr<ServedModel> ollama_model(Call& call, const Json& body);

}  // namespace frugal::serve
