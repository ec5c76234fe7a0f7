// For the tests of the HTTP layer: a server with a stub handler, and raw sockets as its clients.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "base/json.h"
#include "serve/http/http.h"

namespace frugal::serve {

struct ClientAnswer {
  int status = 0;  // 0: the connection ended before
  std::string head, body;
  int interim = 0;        // "100 Continue" before it
  bool complete = false;  // the framing says that it is whole
  std::string header(const std::string& name) const {
    const size_t begin = head.find("\r\n" + name + ": ");
    if (begin == std::string::npos) return "";
    const size_t value = begin + name.size() + 4;
    return head.substr(value, head.find("\r\n", value) - value);
  }
};

// A connection to 127.0.0.1. Waits end after ten seconds.
class Client {
 public:
  explicit Client(int port, int receive_buffer = 0) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    if (receive_buffer) ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof(receive_buffer));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<uint16_t>(port));
    connected_ = ::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
  }
  Client(int port, const std::string& bytes) : Client(port) { send(bytes); }
  ~Client() { close(); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  bool connected() const { return connected_; }
  int fd() const { return fd_; }
  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t count = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (count <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(count));
    }
    return true;
  }
  void shut_writing() { ::shutdown(fd_, SHUT_WR); }
  void reset() {  // RST
    const linger now{1, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    close();
  }
  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

  // Reads more; false at the end of the connection.
  bool receive(int timeout_ms = 10'000) {
    pollfd state{fd_, POLLIN, 0};
    if (::poll(&state, 1, timeout_ms) <= 0) {
      timed_out_ = true;
      return false;
    }
    char buffer[65536];
    const ssize_t count = ::recv(fd_, buffer, sizeof(buffer), 0);
    if (count <= 0) return false;
    received_.append(buffer, static_cast<size_t>(count));
    return true;
  }
  bool closed_by_server(int timeout_ms = 10'000) {
    while (receive(timeout_ms)) {}
    return !timed_out_;
  }
  bool receive_until(const std::string& text) {
    while (received_.find(text) == std::string::npos) {
      if (!receive()) return false;
    }
    return true;
  }
  std::string& received() { return received_; }

  // The next answer. `no_body`: to HEAD.
  ClientAnswer answer(bool no_body = false) {
    ClientAnswer result;
    for (;;) {
      if (!receive_until("\r\n\r\n")) return result;
      const size_t end = received_.find("\r\n\r\n") + 4;
      result.head = received_.substr(0, end);
      received_.erase(0, end);
      result.status = std::stoi(result.head.substr(9, 3));
      if (result.status >= 200) break;
      ++result.interim;
    }
    if (no_body || result.status == 204) {
      result.complete = true;
    } else if (result.header("Transfer-Encoding") == "chunked") {
      read_chunks(result);
    } else if (const std::string length = result.header("Content-Length"); !length.empty()) {
      const size_t bytes = std::stoul(length);
      while (received_.size() < bytes && receive()) {}
      result.complete = received_.size() >= bytes;
      result.body = received_.substr(0, bytes);
      received_.erase(0, bytes);
    } else {
      result.complete = closed_by_server();
      result.body.swap(received_);
    }
    return result;
  }

 private:
  void read_chunks(ClientAnswer& result) {
    for (;;) {
      if (!receive_until("\r\n")) return;
      const size_t line = received_.find("\r\n"), size = std::stoul(received_.substr(0, line), nullptr, 16);
      while (received_.size() < line + 2 + size + 2) {
        if (!receive()) return;
      }
      result.body += received_.substr(line + 2, size);
      EXPECT_EQ(received_.substr(line + 2 + size, 2), "\r\n");
      received_.erase(0, line + 2 + size + 2);
      if (size == 0) {
        result.complete = true;
        return;
      }
    }
  }

  int fd_;
  bool connected_ = false, timed_out_ = false;
  std::string received_;
};

// What the handler was given, as JSON: the body of the stub's answers.
inline std::string described(const HttpRequest& request) {
  Json headers = Json::array();
  for (const auto& [name, value] : request.headers) headers.push_back({name, value});
  const Json all = {{"method", request.method}, {"path", request.path}, {"query", request.query}, {"headers", headers}, {"body", request.body}};
  return all.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// Answers with described(); requests whose path begins with /held wait for the test to take and answer them.
class StubServer {
 public:
  struct Held {
    HttpRequest request;
    std::shared_ptr<HttpResponse> response;
  };

  explicit StubServer(HttpOptions options = quick())
      : server(std::move(options), [this](HttpRequest&& request, std::shared_ptr<HttpResponse> response) { handle(std::move(request), std::move(response)); }) {
  }
  ~StubServer() { server.stop(); }

  // Time-outs that a test can wait for.
  static HttpOptions quick() {
    HttpOptions options;
    options.timeouts.linger = 0.3;
    return options;
  }

  int port() const { return server.port(); }
  Held take() {
    std::unique_lock lock(mutex_);
    if (!arrived_.wait_for(lock, std::chrono::seconds(10), [this] { return !held_.empty(); })) {
      ADD_FAILURE() << "no request arrived";
      return {};
    }
    Held held = std::move(held_.front());
    held_.pop_front();
    return held;
  }
  ClientAnswer get(const std::string& path = "/") {
    Client client(port(), "GET " + path + " HTTP/1.1\r\nHost: localhost\r\n\r\n");
    return client.answer();
  }

 private:
  void handle(HttpRequest&& request, std::shared_ptr<HttpResponse> response) {
    if (!request.path.starts_with("/held")) return response->send(200, {{"Content-Type", "application/json"}}, described(request));
    const std::lock_guard lock(mutex_);
    held_.push_back({std::move(request), std::move(response)});
    arrived_.notify_one();
  }

  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<Held> held_;

 public:
  HttpServer server;  // last: its handler uses the rest
};

// Whether `condition` comes true within ten seconds.
template <typename Condition>
bool eventually(Condition condition) {
  for (int i = 0; i < 2000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return false;
}

inline std::string post(const std::string& body, const std::string& more_headers = "") {
  return "POST /v1/x HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" + more_headers + "Content-Length: " + std::to_string(body.size()) +
         "\r\n\r\n" + body;
}

}  // namespace frugal::serve
