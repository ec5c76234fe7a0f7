// The sockets that a server listens on.
#pragma once

#include <boost/asio/posix/stream_descriptor.hpp>

#include "serve/http/event_loop.h"

namespace frugal::serve {

class Listener {
 public:
  // Listens on all addresses of options.host, or on its Unix socket. `loop` accepts, `adopt` gets what was accepted.
  Listener(std::shared_ptr<const ServerCore> core, EventLoop& loop, std::function<void(int, std::string)> adopt);
  ~Listener();  // after the loop has stopped, or stop_accepting() was waited for

  int port() const { return port_; }
  void begin();
  void stop_accepting();  // on the thread of the loop

 private:
  struct Socket {
    boost::asio::posix::stream_descriptor descriptor;
    boost::asio::steady_timer pause;
  };

  void listen_on_path();
  void listen_on_addresses();
  void add(int fd);
  void watch(Socket& socket);
  void accept_some(Socket& socket);
  bool accept_one(int fd);

  const std::shared_ptr<const ServerCore> core_;
  EventLoop& loop_;
  const std::function<void(int, std::string)> adopt_;
  std::vector<std::unique_ptr<Socket>> sockets_;
  std::string path_;  // of a Unix socket
  int port_ = 0;
  bool stopped_ = false;
};

}  // namespace frugal::serve
