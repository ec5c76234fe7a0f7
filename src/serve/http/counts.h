// Counters that any thread raises, and what every connection of a server shares.
#pragma once

#include <array>
#include <atomic>

#include "serve/http/http.h"
#include "serve/http/target.h"

namespace frugal::serve {

struct Counts {
  std::atomic<uint64_t> accepted = 0, refused = 0, left = 0, dropped = 0, timed_out = 0, accept_pauses = 0;
  std::atomic<size_t> connections = 0;
  std::atomic<size_t> body_bytes = 0;  // of requests that are being read
  std::array<std::atomic<uint64_t>, 600> by_status{};
  std::atomic<bool> draining = false;
  const Clock* clock = nullptr;
};

// Constant but for the counters.
struct ServerCore {
  ServerCore(HttpOptions the_options, HttpHandler the_handler)
      : options(std::move(the_options)), handler(std::move(the_handler)), hosts(options.host, options.allowed_hosts) {
    counts->clock = options.clock;
  }

  const HttpOptions options;
  const HttpHandler handler;
  const AllowedHosts hosts;
  const std::shared_ptr<Counts> counts = std::make_shared<Counts>();  // answers outlive the server
};

}  // namespace frugal::serve
