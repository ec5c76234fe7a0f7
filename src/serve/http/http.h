// The HTTP/1.1 layer of the server: strict framing (what is doubtful gets 400 and the connection ends), limits and time-outs on
// everything a client can send or leave unread, one I/O thread that never computes, answers from any thread.
//
// When a client has left (HttpResponse::on_gone):
//  - a reset, a failed send, or a time-out of TCP: at once, whatever the handler is doing;
//  - a FIN alone may be a client that only ended its sending side and waits for the answer, so it is still answered. While no
//    answer has begun, the server then sends "100 Continue" at once and every `probe` seconds: a client that reads skips it (RFC
//    9110, 15.2), a client that has closed resets the connection, and is gone. In a stream the next write does the same;
//  - one that takes less than `slow_reader_bytes` in `slow_reader` seconds while output waits is dropped.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"

namespace frugal::serve {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  std::string method;   // GET, HEAD, POST, PUT, PATCH, DELETE; others are answered before the handler
  std::string path;     // decoded once, UTF-8, no empty, "." or ".." segments; a final slash stays
  std::string query;    // what follows "?", as sent
  HttpHeaders headers;  // names in lower case, in the order sent
  std::string body;
  std::string remote;  // "127.0.0.1:40000", "[::1]:40000" or "unix"

  const std::string* header(std::string_view lower_name) const;  // the first of that name, or nullptr
};

// A whole answer.
struct HttpAnswer {
  int status = 200;
  HttpHeaders headers;
  std::string body;
};

// An error in OpenAI's shape, {"error": {"message", "type", "param", "code"}}; the type follows from the status, empty is null.
HttpAnswer error_answer(int status, std::string_view message, std::string_view param = {}, std::string_view code = {});

// One answer. Every function may be called from any thread, never blocks and does nothing once the client has left. Whoever
// drops the last reference to one that has no end yet gives the client a 500, or a stream that is visibly cut off.
class HttpResponse {
 public:
  virtual ~HttpResponse() = default;
  // A whole answer with Content-Length. Headers of framing (Content-Length, Transfer-Encoding, Date) are the server's own;
  // "Connection: close" is obeyed. A name or value that would break the framing throws Error{internal}.
  virtual void send(int status, const HttpHeaders& headers, std::string body) = 0;
  void send(HttpAnswer answer) { send(answer.status, answer.headers, std::move(answer.body)); }

  // A stream: chunked, or until the connection ends for an HTTP/1.0 client.
  virtual void start(int status, const HttpHeaders& headers) = 0;
  // All of `data` or nothing. false: the client has left (gone()), or more than `limits.output` bytes would wait; then try again
  // from on_room. A write is always taken while no more than half of that waits.
  virtual bool write(std::string_view data) = 0;
  virtual void finish() = 0;

  virtual size_t waiting_bytes() const = 0;  // taken here and not yet by the kernel
  virtual bool gone() const = 0;             // before the end of the answer

  // The callbacks run once, on the I/O thread (or at once, in the caller, when it is so already), must be quick and must not
  // throw. After finish() or send() neither is called.
  virtual void on_gone(std::function<void()> callback) = 0;
  virtual void on_room(std::function<void()> callback) = 0;  // at most half of `limits.output` waits
};

// Runs on an I/O thread: hands the work on and returns.
using HttpHandler = std::function<void(HttpRequest&&, std::shared_ptr<HttpResponse>)>;

struct HttpLimits {
  size_t request_line = 8 << 10;  // without its line end; more: 414
  size_t headers = 16 << 10;      // all field lines with their line ends; more: 431. Trailers are counted alike
  size_t header_count = 100;
  size_t body = 8 << 20;              // whatever the framing; more: 413
  size_t bodies = size_t{256} << 20;  // of all requests that are being read; more: 503
  size_t connections = 10'000;        // more: 503 and closed
  size_t output = 256 << 10;          // what waits for a client in a stream
};

struct HttpTimeouts {  // seconds
  double header = 10;  // from connecting to the first byte, and from the first byte to the last of a head
  double body_idle = 10;
  double body = 120;          // the whole of it; and at least body_bytes_per_second after the first body_idle seconds
  double keep_alive = 120;    // between requests
  double slow_reader = 30;    // see slow_reader_bytes
  double linger = 2;          // how long what still comes is read away after a last answer, so that no reset overtakes it
  double probe = 1;           // see above
  double dead_peer = 45;      // a peer that no longer acknowledges (TCP_USER_TIMEOUT, keepalive)
  double accept_pause = 0.1;  // after accept failed for want of descriptors or memory
};

struct HttpOptions {
  std::string host = "127.0.0.1";  // an address, "[::1]", a name (all its addresses), or the path of a Unix socket, *.sock
  int port = 0;                    // 0: any that is free
  int io_threads = 1;
  HttpLimits limits;
  HttpTimeouts timeouts;
  double body_bytes_per_second = 1024;
  size_t slow_reader_bytes = 16 << 10;
  // Names that a Host header may hold besides localhost, 127.0.0.1, [::1] and `host`, without port; "*": any. A server bound to a
  // wildcard address also takes every literal address: DNS rebinding needs a name. Others: 403.
  std::vector<std::string> allowed_hosts;
  // Content types of bodies, without parameters; others: 415. Empty: any. (A web page of another origin can send a form or
  // text/plain without being asked; JSON it cannot.)
  std::vector<std::string> content_types = {"application/json"};
  // Beginnings of paths where a body may have any type as long as the request has no Origin, which every web page sends.
  std::vector<std::string> any_type_paths;
  // Asked after the head was read and found well formed, before the body is read and before the handler: an answer refuses.
  std::function<std::optional<HttpAnswer>(const HttpRequest&)> authorize;
  // How an error of this layer is written for the clients of a path ("" where none was read yet), from one in OpenAI's shape; empty: as it is.
  std::function<HttpAnswer(HttpAnswer, std::string_view path)> shape_error;
  const Clock* clock = &system_clock();
};

struct HttpCounters {
  uint64_t accepted = 0;
  uint64_t refused = 0;    // over limits.connections
  uint64_t left = 0;       // the client left before the end of its answer
  uint64_t dropped = 0;    // slow readers
  uint64_t timed_out = 0;  // 408, and connections that never sent a request
  uint64_t accept_pauses = 0;
  size_t connections = 0;                     // open now
  std::map<int, uint64_t> answers_by_status;  // begun
};

class HttpServer {
 public:
  HttpServer(HttpOptions options, HttpHandler handler);  // listens when it returns; throws Error{io, invalid_input}
  ~HttpServer();                                         // stop()
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  int port() const;  // 0 for a Unix socket
  HttpCounters counters() const;

  // Not from an I/O thread:
  void stop_accepting();
  // stop_accepting(), then idle connections are closed, requests that are not yet whole get 503, every answer ends its
  // connection; waits until all have ended or `seconds` are over and then closes the rest. Whether all ended by themselves.
  bool drain(double seconds);
  void stop();  // closes everything now

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// SHA-256 of both, compared in constant time: neither time nor an early difference tells where a wrong key differs.
bool equal_in_constant_time(std::string_view a, std::string_view b);

}  // namespace frugal::serve
