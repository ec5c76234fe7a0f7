// One client's connection: read a request, answer it, and so on, in order. All of it runs on the thread of its event loop, but
// for the bytes of an answer, which come through an AnswerChannel.
#pragma once

#include <boost/asio/posix/stream_descriptor.hpp>
#include <limits>

#include "serve/http/answer_channel.h"
#include "serve/http/event_loop.h"
#include "serve/http/request_parser.h"

namespace frugal::serve {

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  static constexpr double kNever = std::numeric_limits<double>::infinity();

  Connection(EventLoop& loop, int fd, std::string remote);  // owns fd once it returns
  ~Connection();

  void begin();
  void close();
  void close_if_idle();
  void on_deadline();
  void on_wake() { on_event(Wait::writable); }  // its channel has something to take

  // For the event loop.
  double deadline = kNever, queued_deadline = kNever;

 private:
  enum class Phase { reading, answering, lingering, closed };
  enum class Wait { readable, writable, broken };

  void watch(Wait wait);
  void watch_client();
  void on_event(Wait wait);
  void on_readable();
  void on_broken();
  void on_end_of_input();
  void read_request(std::string_view bytes);
  bool account_body();
  std::optional<HttpAnswer> check_head();
  std::optional<HttpAnswer> check_body_headers();
  void refuse(HttpAnswer answer, bool keep_alive);
  void hand_over();
  void open_channel(bool keep_alive);
  void flush();
  bool send_some();  // false: closed or blocked
  void end_answer(bool abandoned);
  void next_request();
  void linger();
  void drop_slow_reader();
  bool send_interim();
  bool probes() const;
  void update_deadline();
  bool idle() const { return phase_ == Phase::reading && !parser_.started() && pending_.empty(); }

  EventLoop& loop_;
  const ServerCore& core_;
  boost::asio::posix::stream_descriptor socket_;
  std::string remote_;
  RequestParser parser_;
  std::string pending_;  // read while an answer is under way
  std::string sending_;
  size_t sent_ = 0;
  std::shared_ptr<AnswerChannel> channel_;
  double since_ = 0;  // of the phase; in a request: of its first byte
  double body_since_ = 0, last_read_ = 0;
  double blocked_since_ = 0, next_probe_ = 0;
  size_t taken_since_ = 0;  // bytes since blocked_since_
  size_t body_counted_ = 0;
  Phase phase_ = Phase::reading;
  bool first_ = true, end_of_input_ = false, blocked_ = false, watch_later_ = false;
  bool waits_[3] = {};
};

}  // namespace frugal::serve
