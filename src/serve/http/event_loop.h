// One I/O thread: its connections, their deadlines, and a buffer that all of them read into, so that an idle one holds none.
#pragma once

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <unordered_map>

#include "serve/http/counts.h"

namespace frugal::serve {

class Connection;

// A connection that is to be looked at. Its memory is there before it is needed, so that waking cannot fail.
struct WakeCall {
  std::weak_ptr<Connection> connection;
  std::shared_ptr<WakeCall> next;
  bool queued = false;
};

class EventLoop {
 public:
  explicit EventLoop(std::shared_ptr<const ServerCore> core);
  ~EventLoop();  // stop()

  // From any thread.
  void adopt(int fd, std::string remote);  // a connected socket that does not block
  void post(std::function<void()> work) { boost::asio::post(context_, std::move(work)); }
  void wake(const std::shared_ptr<WakeCall>& call) noexcept;
  void close_idle();
  void stop();  // closes all connections and ends the thread; not from it

  // On the thread.
  boost::asio::io_context& context() { return context_; }
  const ServerCore& core() const { return *core_; }
  std::vector<char>& scratch() { return scratch_; }
  double now() const { return core_->options.clock->seconds(); }
  void set_deadline(Connection& connection, double seconds);
  void forget(Connection& connection);

 private:
  void run();
  void arm_tick();
  void tick();
  void await_wakes();
  void on_wakes();
  std::vector<std::shared_ptr<Connection>> all() const;

  const std::shared_ptr<const ServerCore> core_;
  boost::asio::io_context context_{1};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  boost::asio::steady_timer tick_timer_;
  std::chrono::microseconds tick_;
  bool ticking_ = false;
  boost::asio::posix::stream_descriptor wakes_;  // an eventfd, to be read when there are calls
  std::mutex wake_mutex_;
  std::shared_ptr<WakeCall> calls_;  // under it
  std::vector<char> scratch_;
  std::unordered_map<Connection*, std::shared_ptr<Connection>> connections_;
  std::set<std::pair<double, Connection*>> deadlines_;  // not later than the true one
  std::thread thread_;
};

}  // namespace frugal::serve
