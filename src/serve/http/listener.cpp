#include "serve/http/listener.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/error.h"
#include "base/log.h"

namespace frugal::serve {
namespace {

constexpr int kBacklog = 4096;
constexpr int kAcceptsAtATime = 64;
constexpr int kUnsentInKernel = 32 << 10;  // so that what waits for a slow client waits here, where it is bounded

void set_option(int fd, int level, int option, int value) { ::setsockopt(fd, level, option, &value, sizeof(value)); }

// What Linux hands on to each accepted connection.
void set_connection_options(int fd, const HttpTimeouts& timeouts) {
  const int dead = std::max(1, static_cast<int>(timeouts.dead_peer));
  set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, std::max(1, dead / 2));
  set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, std::max(1, dead / 6));
  set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
  set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, static_cast<int>(timeouts.dead_peer * 1000));
  set_option(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, kUnsentInKernel);
}

std::string remote_of(const sockaddr_storage& address) {
  char text[INET6_ADDRSTRLEN] = "";
  if (address.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
    ::inet_ntop(AF_INET, &v4.sin_addr, text, sizeof(text));
    return fmt::format("{}:{}", text, ntohs(v4.sin_port));
  }
  if (address.ss_family == AF_INET6) {
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
    ::inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof(text));
    return fmt::format("[{}]:{}", text, ntohs(v6.sin6_port));
  }
  return "unix";
}

// A socket file that nobody listens on any more (a killed server) is in the way; anything else is left alone.
void remove_stale_socket(const sockaddr_un& address) {
  struct ::stat info {};
  if (::lstat(address.sun_path, &info) != 0 || !S_ISSOCK(info.st_mode)) return;
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return;
  const bool refused = ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 && errno == ECONNREFUSED;
  ::close(fd);
  if (refused) ::unlink(address.sun_path);
}

}  // namespace

Listener::Listener(std::shared_ptr<const ServerCore> core, EventLoop& loop, std::function<void(int, std::string)> adopt)
    : core_(std::move(core)), loop_(loop), adopt_(std::move(adopt)) {
  if (core_->options.host.ends_with(".sock")) {
    listen_on_path();
  } else {
    listen_on_addresses();
  }
}

Listener::~Listener() {
  if (!path_.empty() && !stopped_) ::unlink(path_.c_str());
}

void Listener::add(int fd) {
  sockets_.push_back(std::make_unique<Socket>(Socket{boost::asio::posix::stream_descriptor(loop_.context()), boost::asio::steady_timer(loop_.context())}));
  sockets_.back()->descriptor.assign(fd);
}

void Listener::listen_on_path() {
  const std::string& path = core_->options.host;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path))
    fail(ErrorKind::invalid_input, "{}: the path of a socket has {} bytes at most", path, sizeof(address.sun_path) - 1);
  path.copy(address.sun_path, path.size());
  remove_stale_socket(address);
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) fail_errno("cannot make a socket", path);
  add(fd);
  ::fchmod(fd, 0600);  // before bind: the file is its owner's from the start
  if (::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) fail_errno("cannot bind", path);
  path_ = path;
  if (::listen(fd, kBacklog) != 0) fail_errno("cannot listen", path);
}

void Listener::listen_on_addresses() {
  std::string host = core_->options.host;
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  const int wanted = core_->options.port;
  if (wanted < 0 || wanted > 65535) fail(ErrorKind::invalid_input, "port {}: 0 to 65535 are possible", wanted);
  port_ = wanted;
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  if (const int code = ::getaddrinfo(host.c_str(), nullptr, &hints, &found); code != 0) {
    fail(ErrorKind::invalid_input, "{}: not an address to listen on: {}", printable(host), ::gai_strerror(code));
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> addresses(found, ::freeaddrinfo);
  for (const addrinfo* each = found; each; each = each->ai_next) {
    const int fd = ::socket(each->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) continue;
    set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (each->ai_family == AF_INET6) set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, host == "::" ? 0 : 1);
    set_connection_options(fd, core_->options.timeouts);
    auto* address = each->ai_addr;
    auto& port = each->ai_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(address)->sin6_port : reinterpret_cast<sockaddr_in*>(address)->sin_port;
    port = htons(static_cast<uint16_t>(port_));
    if (::bind(fd, address, each->ai_addrlen) != 0 || ::listen(fd, kBacklog) != 0) {
      const int code = errno;
      ::close(fd);
      errno = code;
      if (sockets_.empty() && !each->ai_next) fail_errno("cannot listen", fmt::format("{} port {}", host, port_));
      continue;
    }
    sockaddr_storage bound{};
    socklen_t size = sizeof(bound);
    ::getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &size);
    port_ = ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(bound).sin6_port : reinterpret_cast<sockaddr_in&>(bound).sin_port);
    add(fd);
  }
  if (sockets_.empty()) fail(ErrorKind::io, "{}: cannot make a socket", host);
}

void Listener::begin() {
  for (const auto& socket : sockets_) watch(*socket);
}

void Listener::stop_accepting() {
  if (stopped_) return;
  stopped_ = true;
  for (const auto& socket : sockets_) {
    boost::system::error_code ignored;
    socket->descriptor.close(ignored);
    socket->pause.cancel();
  }
  if (!path_.empty()) ::unlink(path_.c_str());
}

void Listener::watch(Socket& socket) {
  socket.descriptor.async_wait(boost::asio::posix::stream_descriptor::wait_read, [this, &socket](const boost::system::error_code& error) {
    if (!error && !stopped_) accept_some(socket);
  });
}

void Listener::accept_some(Socket& socket) {
  for (int i = 0; i < kAcceptsAtATime; ++i) {
    if (accept_one(socket.descriptor.native_handle())) continue;
    if (errno == EAGAIN || errno == EWOULDBLOCK) break;
    if (errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM) continue;  // of that one connection
    // The descriptor stays readable: without a pause this would spin.
    if (++core_->counts->accept_pauses == 1) log_warning("http: no connection can be accepted: out of file descriptors or memory");
    socket.pause.expires_after(std::chrono::microseconds(static_cast<int64_t>(core_->options.timeouts.accept_pause * 1e6)));
    socket.pause.async_wait([this, &socket](const boost::system::error_code& error) {
      if (!error && !stopped_) watch(socket);
    });
    return;
  }
  watch(socket);
}

bool Listener::accept_one(int listening) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  const int fd = ::accept4(listening, reinterpret_cast<sockaddr*>(&address), &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) return false;
  Counts& counts = *core_->counts;
  if (counts.connections >= core_->options.limits.connections) {
    ++counts.refused;
    static constexpr std::string_view kFull =
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 96\r\n\r\n"
        R"({"error":{"message":"too many connections","type":"unavailable_error","param":null,"code":null}})";
    ::send(fd, kFull.data(), kFull.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    ::shutdown(fd, SHUT_WR);
    ::close(fd);
    return true;
  }
  ++counts.accepted;
  ++counts.connections;
  adopt_(fd, remote_of(address));
  return true;
}

}  // namespace frugal::serve
