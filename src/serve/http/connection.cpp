#include "serve/http/connection.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "base/error.h"
#include "base/log.h"

namespace frugal::serve {
namespace {

constexpr size_t kMaxPending = 16 << 10;
constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
constexpr const char* kMethods = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

bool has_content(const std::string& method) { return method == "POST" || method == "PUT" || method == "PATCH"; }

void release(std::string& text) { std::string().swap(text); }

HttpAnswer busy_answer(const char* message) {
  HttpAnswer answer = error_answer(503, message);
  answer.headers.emplace_back("Retry-After", "1");
  return answer;
}

}  // namespace

Connection::Connection(EventLoop& loop, int fd, std::string remote)
    : loop_(loop), core_(loop.core()), socket_(loop.context()), remote_(std::move(remote)), parser_(core_.options.limits) {
  socket_.assign(fd);
}

Connection::~Connection() = default;

void Connection::begin() {
  since_ = loop_.now();
  update_deadline();
  watch_client();
}

void Connection::close() {
  if (phase_ == Phase::closed) return;
  phase_ = Phase::closed;
  const auto self = shared_from_this();
  loop_.forget(*this);
  core_.counts->body_bytes -= body_counted_;
  boost::system::error_code ignored;
  socket_.close(ignored);
  --core_.counts->connections;
  if (channel_) channel_->detach();
  channel_.reset();
}

void Connection::close_if_idle() {
  if (idle()) close();
}

// ---- What is waited for

void Connection::watch(Wait wait) {
  bool& waits = waits_[static_cast<size_t>(wait)];
  if (waits || phase_ == Phase::closed) return;
  waits = true;
  using Descriptor = boost::asio::posix::stream_descriptor;
  const Descriptor::wait_type type = wait == Wait::readable ? Descriptor::wait_read : wait == Wait::writable ? Descriptor::wait_write : Descriptor::wait_error;
  socket_.async_wait(type, [self = shared_from_this(), wait](const boost::system::error_code& error) {
    self->waits_[static_cast<size_t>(wait)] = false;
    if (!error) self->on_event(wait);
  });
}

// The client: what it sends, as long as there is room for it; else only whether the connection breaks.
void Connection::watch_client() {
  if (phase_ == Phase::closed) return;
  const bool room = phase_ != Phase::answering || pending_.size() < kMaxPending;
  if (!end_of_input_ && room) {
    watch(Wait::readable);
  } else if (!watch_later_) {
    watch(Wait::broken);
  }
}

void Connection::on_event(Wait wait) {
  if (phase_ == Phase::closed) return;
  try {
    if (wait == Wait::readable) on_readable();
    if (wait == Wait::writable) flush();
    if (wait == Wait::broken) on_broken();
    watch_client();
    update_deadline();
  } catch (const std::exception& error) {  // out of memory
    log_warning("http: a connection is closed: {}", printable(error.what()));
    close();
  }
}

void Connection::on_broken() {
  pollfd state{socket_.native_handle(), 0, 0};
  if (::poll(&state, 1, 0) > 0 && state.revents & (POLLERR | POLLHUP | POLLNVAL)) return close();
  watch_later_ = true;  // urgent data, which would wake us for ever: looked at again with the next probe
  next_probe_ = loop_.now() + core_.options.timeouts.probe;
}

void Connection::on_readable() {
  std::vector<char>& scratch = loop_.scratch();
  const size_t room = phase_ == Phase::answering ? kMaxPending - std::min(kMaxPending, pending_.size()) : scratch.size();
  if (room == 0 || end_of_input_) return;
  const ssize_t count = ::recv(socket_.native_handle(), scratch.data(), room, MSG_DONTWAIT);
  if (count < 0) {
    if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) close();
    return;
  }
  if (count == 0) return on_end_of_input();
  const std::string_view bytes(scratch.data(), static_cast<size_t>(count));
  if (phase_ == Phase::answering) pending_ += bytes;
  if (phase_ == Phase::reading) read_request(bytes);
}

void Connection::on_end_of_input() {
  end_of_input_ = true;
  if (phase_ == Phase::lingering || idle()) return close();
  if (phase_ == Phase::reading) return refuse(error_answer(400, "the request is cut off"), false);
  if (probes()) next_probe_ = loop_.now();
  if (probes() && !send_interim()) close();
}

// ---- Requests

void Connection::read_request(std::string_view bytes) {
  last_read_ = loop_.now();
  if (!parser_.started()) since_ = last_read_;
  for (;;) {
    const RequestParser::Event event = parser_.consume(bytes);
    if (event == RequestParser::Event::failed) {
      const HttpFault& fault = parser_.fault();
      return refuse(error_answer(fault.status, fault.message, {}, fault.code), false);
    }
    if (!account_body()) return refuse(busy_answer("too many bodies are being received"), false);
    if (event == RequestParser::Event::more) return;
    if (event == RequestParser::Event::complete) {
      pending_.assign(bytes);
      return hand_over();
    }
    body_since_ = last_read_;
    if (const std::optional<HttpAnswer> refusal = check_head()) {
      // Without a length a body may follow that would be read as the next request.
      const bool keep_alive = !parser_.has_body() && parser_.keep_alive() && refusal->status < 500 && refusal->status != 411;
      if (keep_alive) pending_.assign(bytes);
      return refuse(*refusal, keep_alive);
    }
    if (parser_.expects_continue() && parser_.has_body() && bytes.empty() && !send_interim()) return close();
  }
}

bool Connection::account_body() {
  const size_t grown = parser_.body_bytes() - body_counted_;
  body_counted_ += grown;
  return (core_.counts->body_bytes += grown) <= core_.options.limits.bodies || grown == 0;
}

std::optional<HttpAnswer> Connection::check_head() {
  const HttpRequest& request = parser_.request();
  if (!parser_.host().empty() && !core_.hosts.allows(parser_.host())) {
    return error_answer(403, "this host is not served here: the operator can allow it", {}, "host_not_allowed");
  }
  parser_.request().remote = remote_;
  if (core_.options.authorize) {
    try {
      if (std::optional<HttpAnswer> refusal = core_.options.authorize(request)) return refusal;
    } catch (const std::exception& error) {
      log_warning("http: authorize failed: {}", printable(error.what()));
      return error_answer(500, "the request could not be authorized");
    }
  }
  if (core_.counts->draining) return busy_answer("the server is shutting down");
  const std::string& method = request.method;
  if (method == "OPTIONS") return HttpAnswer{204, {{"Allow", kMethods}}, {}};
  if (method != "GET" && method != "HEAD" && method != "DELETE" && !has_content(method)) {
    HttpAnswer refusal = error_answer(method == "TRACE" || method == "CONNECT" ? 405 : 501, "this method is not served here");
    refusal.headers.emplace_back("Allow", kMethods);
    return refusal;
  }
  return check_body_headers();
}

std::optional<HttpAnswer> Connection::check_body_headers() {
  const HttpRequest& request = parser_.request();
  const HttpLimits& limits = core_.options.limits;
  if (has_content(request.method) && !parser_.has_length()) return error_answer(411, "the request has neither Content-Length nor chunks");
  if (parser_.content_length() > limits.body) {
    return error_answer(413, fmt::format("the body is too large: {} bytes, {} at most", parser_.content_length(), limits.body), {}, "request_too_large");
  }
  if (parser_.content_length() + core_.counts->body_bytes > limits.bodies) return busy_answer("too many bodies are being received");
  const std::vector<std::string>& types = core_.options.content_types;
  if (!has_content(request.method) || !parser_.has_body() || types.empty()) return std::nullopt;
  const std::string* header = request.header("content-type");
  std::string type = header ? header->substr(0, header->find_first_of("; \t")) : "";
  std::transform(type.begin(), type.end(), type.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  if (std::find(types.begin(), types.end(), type) != types.end()) return std::nullopt;
  const auto under = [&](const std::string& path) { return request.path.starts_with(path); };
  if (!request.header("origin") && std::ranges::any_of(core_.options.any_type_paths, under)) return std::nullopt;
  return error_answer(415, fmt::format("the Content-Type must be {}", fmt::join(types, " or ")));
}

void Connection::open_channel(bool keep_alive) {
  core_.counts->body_bytes -= body_counted_;
  body_counted_ = 0;
  phase_ = Phase::answering;
  first_ = false;
  auto call = std::make_shared<WakeCall>();
  call->connection = weak_from_this();
  const auto wake = [call = std::move(call), &loop = loop_] { loop.wake(call); };
  const AnswerChannel::Framing framing{parser_.request().method == "HEAD", parser_.http_1_0(), keep_alive};
  channel_ = std::make_shared<AnswerChannel>(framing, core_.options.limits.output, core_.counts, wake);
}

void Connection::refuse(HttpAnswer answer, bool keep_alive) {
  if (answer.status == 408) ++core_.counts->timed_out;
  if (core_.options.shape_error) answer = core_.options.shape_error(std::move(answer), parser_.request().path);
  open_channel(keep_alive);
  channel_->send(answer.status, answer.headers, answer.body);
}

void Connection::hand_over() {
  if (core_.counts->draining) return refuse(busy_answer("the server is shutting down"), false);
  open_channel(parser_.keep_alive());
  std::shared_ptr<HttpResponse> response = make_response(channel_);
  try {
    core_.handler(std::move(parser_.request()), std::move(response));
  } catch (const std::exception& error) {  // what drops its response answers with 500
    log_warning("http: the handler failed: {}", printable(error.what()));
  }
}

// ---- Answers

bool Connection::send_some() {
  const ssize_t count = ::send(socket_.native_handle(), sending_.data() + sent_, sending_.size() - sent_, MSG_NOSIGNAL | MSG_DONTWAIT);
  if (count < 0 && errno == EINTR) return true;
  if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
    if (!blocked_) {
      blocked_ = true;
      blocked_since_ = loop_.now();
      taken_since_ = 0;
    }
    watch(Wait::writable);
    return false;
  }
  if (count < 0) {
    close();
    return false;
  }
  sent_ += static_cast<size_t>(count);
  taken_since_ += static_cast<size_t>(count);
  channel_->sent(static_cast<size_t>(count));
  return phase_ != Phase::closed;
}

void Connection::flush() {
  while (phase_ == Phase::answering && channel_) {
    if (sent_ < sending_.size()) {
      if (!send_some()) return;
      continue;
    }
    sending_.clear();
    sent_ = 0;
    const AnswerChannel::Taken taken = channel_->take(sending_);
    if (sending_.empty()) {
      blocked_ = false;
      if (taken.ended) end_answer(taken.abandoned);
      return;
    }
  }
}

void Connection::end_answer(bool abandoned) {
  const bool last = channel_->closes() || core_.counts->draining;
  channel_->detach();
  channel_.reset();
  if (abandoned) return close();
  if (last) return linger();
  next_request();
}

void Connection::next_request() {
  parser_.start_next();
  release(sending_);
  phase_ = Phase::reading;
  watch_later_ = false;
  since_ = loop_.now();
  std::string bytes;
  bytes.swap(pending_);
  if (!bytes.empty()) read_request(bytes);
  if (end_of_input_ && phase_ == Phase::reading) on_end_of_input();
}

// Closing while something unread waits would make the kernel reset the connection, and the answer could be lost.
void Connection::linger() {
  if (end_of_input_) return close();
  ::shutdown(socket_.native_handle(), SHUT_WR);
  release(sending_);
  release(pending_);
  parser_.start_next();
  phase_ = Phase::lingering;
  since_ = loop_.now();
}

bool Connection::send_interim() {
  if (sent_ < sending_.size()) return true;
  const ssize_t count = ::send(socket_.native_handle(), kContinue.data(), kContinue.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  if (count < 0) return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
  return static_cast<size_t>(count) == kContinue.size();
}

// ---- Time

bool Connection::probes() const { return phase_ == Phase::answering && end_of_input_ && !parser_.http_1_0() && channel_ && !channel_->begun(); }

void Connection::update_deadline() {
  const HttpTimeouts& t = core_.options.timeouts;
  double next = kNever;
  if (phase_ == Phase::closed) return;
  if (phase_ == Phase::lingering) next = since_ + t.linger;
  if (phase_ == Phase::reading) {
    next = since_ + (parser_.started() || first_ ? t.header : t.keep_alive);
    if (parser_.past_head()) {
      const double by_rate = body_since_ + t.body_idle + static_cast<double>(parser_.body_bytes()) / core_.options.body_bytes_per_second;
      next = std::min({last_read_ + t.body_idle, body_since_ + t.body, by_rate});
    }
  }
  if (phase_ == Phase::answering) {
    if (blocked_) next = blocked_since_ + t.slow_reader;
    if (probes() || watch_later_) next = std::min(next, next_probe_);
  }
  loop_.set_deadline(*this, next);
}

void Connection::on_deadline() {
  const auto self = shared_from_this();
  const double time = loop_.now();
  const HttpTimeouts& t = core_.options.timeouts;
  try {
    if (phase_ == Phase::lingering) return close();
    if (phase_ == Phase::reading) {
      if (idle()) {
        if (first_) ++core_.counts->timed_out;
        return close();
      }
      refuse(error_answer(408, "the request took too long to arrive"), false);
    } else if (phase_ == Phase::answering) {
      if (blocked_ && time >= blocked_since_ + t.slow_reader) {
        if (taken_since_ < core_.options.slow_reader_bytes) return drop_slow_reader();
        blocked_since_ = time;
        taken_since_ = 0;
      }
      if (time >= next_probe_) {
        next_probe_ = time + t.probe;
        watch_later_ = false;
        if (probes() && !send_interim()) return close();
        watch_client();
      }
    }
    update_deadline();
  } catch (const std::exception&) {
    close();
  }
}

void Connection::drop_slow_reader() {
  ++core_.counts->dropped;
  const ::linger reset{1, 0};  // what the kernel holds for it is freed
  ::setsockopt(socket_.native_handle(), SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
  close();
}

}  // namespace frugal::serve
