// Between whoever answers, on any thread, and the connection on its I/O thread: bytes go down, "gone" and "room" come back.
#pragma once

#include <mutex>

#include "serve/http/answer.h"
#include "serve/http/counts.h"

namespace frugal::serve {

class AnswerChannel {
 public:
  struct Framing {
    bool head_request = false;  // HEAD: no body
    bool http_1_0 = false;
    bool keep_alive = true;
  };

  // `wake`: called with the lock held, by any thread, when there is something to take; must not throw, nor take it at once.
  AnswerChannel(Framing framing, size_t output_limit, std::shared_ptr<Counts> counts, std::function<void()> wake);

  // For the handler's side: HttpResponse's functions.
  void send(int status, const HttpHeaders& headers, std::string_view body);
  void start(int status, const HttpHeaders& headers);
  bool write(std::string_view data);
  void finish();
  void abandon();  // the last reference is dropped; does not throw
  size_t waiting_bytes() const;
  bool gone() const;
  void on_gone(std::function<void()> callback);
  void on_room(std::function<void()> callback);

  // For the connection.
  struct Taken {
    bool ended = false;      // nothing comes after this
    bool abandoned = false;  // a stream without an end: cut the connection
  };
  Taken take(std::string& output);  // what waits; `output` is empty before
  void sent(size_t bytes);          // of what was taken
  void detach();                    // the connection ends
  bool begun() const;
  bool closes() const;  // once ended

 private:
  enum class Phase { waiting, streaming, ended };

  void begin(int status, const HttpHeaders& headers, BodyFraming framing, size_t length);
  void append_chunk(std::string_view data);
  void wake();
  void cut();
  size_t waiting() const { return output_.size() + in_flight_; }

  const Framing framing_;
  const size_t output_limit_;
  const std::shared_ptr<Counts> counts_;
  mutable std::mutex mutex_;
  std::function<void()> wake_, on_gone_, on_room_;
  std::string output_;
  size_t in_flight_ = 0;  // taken by the I/O thread, not yet by the kernel
  Phase phase_ = Phase::waiting;
  BodyFraming body_framing_ = BodyFraming::none;
  bool woken_ = false, gone_ = false, close_ = false, abandoned_ = false;
};

// What a handler holds.
std::shared_ptr<HttpResponse> make_response(std::shared_ptr<AnswerChannel> channel);

}  // namespace frugal::serve
