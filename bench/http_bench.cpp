// The HTTP layer with a handler that answers at once.
//
//   http_bench            10,000 idle connections from a second process: memory of the server for each, and round trips beside them,
//                         as a multiple of those of a bare echo over a socket
//   http_bench serve [N]  serves on a free port, with N I/O threads, until standard input ends, for wrk and hey: / (an answer), /stream (64 chunks)
#include <arpa/inet.h>
#include <malloc.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <thread>
#include <vector>

#include "serve/http/http.h"

namespace {

using namespace frugal::serve;

constexpr int kConnections = 10'000, kSources = 4, kRounds = 5'000;
const std::string kRequest = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

void answer(HttpRequest&& request, std::shared_ptr<HttpResponse> response) {
  if (request.path != "/stream") return response->send(200, {{"Content-Type", "application/json"}}, R"({"answer":"ok"})");
  response->start(200, {{"Content-Type", "text/event-stream"}});
  for (int i = 0; i < 64; ++i) response->write("data: {\"token\": \"word\"}\n\n");
  response->finish();
}

int connect_from(int source, int port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), now = 1;
  sockaddr_in own{}, server{};
  own.sin_family = server.sin_family = AF_INET;
  own.sin_addr.s_addr = htonl(INADDR_LOOPBACK + static_cast<uint32_t>(source));
  server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  server.sin_port = htons(static_cast<uint16_t>(port));
  ::setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &now, sizeof(now));
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &now, sizeof(now));
  if (::bind(fd, reinterpret_cast<const sockaddr*>(&own), sizeof(own)) != 0 || ::connect(fd, reinterpret_cast<const sockaddr*>(&server), sizeof(server)) != 0) {
    std::perror("connect");
    std::exit(1);
  }
  return fd;
}

// Sorted seconds.
std::vector<double> round_trips(int fd) {
  std::vector<double> times;
  char buffer[4096];
  for (int i = 0; i < kRounds; ++i) {
    const auto start = std::chrono::steady_clock::now();
    if (::send(fd, kRequest.data(), kRequest.size(), 0) < 0 || ::recv(fd, buffer, sizeof(buffer), 0) <= 0) std::exit(1);
    times.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(times.begin(), times.end());
  return times;
}

// The other process: connects, uses each connection once, and holds them while it measures.
int client(int port, int ready) {
  std::vector<int> fds;
  char buffer[4096];
  for (int i = 0; i < kConnections; ++i) {
    fds.push_back(connect_from(i % kSources, port));
    if (::send(fds.back(), kRequest.data(), kRequest.size(), 0) < 0 || ::recv(fds.back(), buffer, sizeof(buffer), 0) <= 0) return 1;
  }
  if (::write(ready, "x", 1) != 1) return 1;
  int echo[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM, 0, echo) != 0) return 1;
  std::thread other([&] {
    char bytes[4096];
    for (ssize_t count; (count = ::recv(echo[1], bytes, sizeof(bytes), 0)) > 0;) ::send(echo[1], bytes, static_cast<size_t>(count), MSG_NOSIGNAL);
  });
  const std::vector<double> bare = round_trips(echo[0]), served = round_trips(fds.front());
  for (const double part : {0.5, 0.99, 0.999}) {
    const size_t at = static_cast<size_t>(part * kRounds);
    std::printf("round trip, quantile %.3f: %.0f us, %.1f times a bare echo\n", part, served[at] * 1e6, served[at] / bare[at]);
  }
  ::shutdown(echo[0], SHUT_RDWR);
  other.join();
  return 0;
}

size_t resident_bytes() {
  size_t pages = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> pages >> resident;
  return resident * static_cast<size_t>(::sysconf(_SC_PAGESIZE));
}

int idle() {
  int port_pipe[2], ready[2], port = 0;
  if (::pipe(port_pipe) != 0 || ::pipe(ready) != 0) return 1;
  const pid_t child = ::fork();
  if (child == 0) {
    if (::read(port_pipe[0], &port, sizeof(port)) != sizeof(port)) ::_exit(1);
    const int code = client(port, ready[1]);
    std::fflush(stdout);
    ::_exit(code);
  }
  ::close(ready[1]);
  HttpServer server({}, answer);
  const size_t resident = resident_bytes(), used = ::mallinfo2().uordblks + ::mallinfo2().hblkhd;
  port = server.port();
  char byte;
  if (::write(port_pipe[1], &port, sizeof(port)) != sizeof(port) || ::read(ready[0], &byte, 1) != 1) return 1;
  const size_t open = server.counters().connections;
  std::printf("%zu connections: %.0f bytes allocated and %.0f resident for each\n", open,
              static_cast<double>(::mallinfo2().uordblks + ::mallinfo2().hblkhd - used) / static_cast<double>(open),
              static_cast<double>(resident_bytes() - resident) / static_cast<double>(open));
  std::fflush(stdout);
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

}  // namespace

int main(int count, char** arguments) {
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &files);
  if (count == 1) return idle();
  HttpOptions options;
  if (count > 2) options.io_threads = std::atoi(arguments[2]);
  HttpServer server(options, answer);
  std::printf("%d\n", server.port());
  std::fflush(stdout);
  while (std::getchar() != EOF) {}
  return 0;
}
