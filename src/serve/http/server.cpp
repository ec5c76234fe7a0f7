#include <algorithm>
#include <future>

#include "base/error.h"
#include "serve/http/listener.h"

namespace frugal::serve {

struct HttpServer::State {
  std::shared_ptr<const ServerCore> core;
  std::vector<std::unique_ptr<EventLoop>> loops;
  std::unique_ptr<Listener> listener;  // accepts on the first loop
  size_t next = 0;                     // of the loops, touched by the first one only
  bool stopped = false;

  // A listener of that loop may be destroyed once this has run there.
  void on_first_loop(const std::function<void()>& work) {
    std::promise<void> done;
    loops.front()->post([&] {
      work();
      done.set_value();
    });
    done.get_future().wait();
  }
};

HttpServer::HttpServer(HttpOptions options, HttpHandler handler) : state_(std::make_unique<State>()) {
  if (!options.clock || !handler || options.io_threads < 1) fail(ErrorKind::invalid_input, "an HTTP server needs a clock, a handler and a thread");
  state_->core = std::make_shared<ServerCore>(std::move(options), std::move(handler));
  for (int i = 0; i < state_->core->options.io_threads; ++i) state_->loops.push_back(std::make_unique<EventLoop>(state_->core));
  state_->listener = std::make_unique<Listener>(state_->core, *state_->loops.front(), [state = state_.get()](int fd, std::string remote) {
    state->loops[state->next++ % state->loops.size()]->adopt(fd, std::move(remote));
  });
  state_->on_first_loop([this] { state_->listener->begin(); });
}

HttpServer::~HttpServer() { stop(); }

int HttpServer::port() const { return state_->listener->port(); }

HttpCounters HttpServer::counters() const {
  const Counts& counts = *state_->core->counts;
  HttpCounters result{counts.accepted, counts.refused, counts.left, counts.dropped, counts.timed_out, counts.accept_pauses, counts.connections, {}};
  for (size_t status = 0; status < counts.by_status.size(); ++status) {
    if (const uint64_t count = counts.by_status[status]) result.answers_by_status[static_cast<int>(status)] = count;
  }
  return result;
}

void HttpServer::stop_accepting() {
  if (!state_->stopped) state_->on_first_loop([this] { state_->listener->stop_accepting(); });
}

bool HttpServer::drain(double seconds) {
  stop_accepting();
  Counts& counts = *state_->core->counts;
  counts.draining = true;
  const Stopwatch watch;  // the system's clock: an injected one may stand still
  if (!state_->stopped) {
    for (const auto& loop : state_->loops) loop->close_idle();
  }
  while (counts.connections > 0 && watch.seconds() < seconds) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  const bool all_ended = counts.connections == 0;
  stop();
  return all_ended;
}

void HttpServer::stop() {
  if (std::exchange(state_->stopped, true)) return;
  state_->core->counts->draining = true;
  state_->on_first_loop([this] { state_->listener->stop_accepting(); });
  for (const auto& loop : state_->loops) loop->stop();
}

}  // namespace frugal::serve
