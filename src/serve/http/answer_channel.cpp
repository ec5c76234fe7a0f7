#include "serve/http/answer_channel.h"

#include "base/error.h"
#include "base/log.h"

namespace frugal::serve {
namespace {

class ChannelResponse : public HttpResponse {
 public:
  explicit ChannelResponse(std::shared_ptr<AnswerChannel> channel) : channel_(std::move(channel)) {}
  ~ChannelResponse() override { channel_->abandon(); }

  void send(int status, const HttpHeaders& headers, std::string body) override { channel_->send(status, headers, body); }
  void start(int status, const HttpHeaders& headers) override { channel_->start(status, headers); }
  bool write(std::string_view data) override { return channel_->write(data); }
  void finish() override { channel_->finish(); }
  size_t waiting_bytes() const override { return channel_->waiting_bytes(); }
  bool gone() const override { return channel_->gone(); }
  void on_gone(std::function<void()> callback) override { channel_->on_gone(std::move(callback)); }
  void on_room(std::function<void()> callback) override { channel_->on_room(std::move(callback)); }

 private:
  std::shared_ptr<AnswerChannel> channel_;
};

}  // namespace

std::shared_ptr<HttpResponse> make_response(std::shared_ptr<AnswerChannel> channel) { return std::make_shared<ChannelResponse>(std::move(channel)); }

AnswerChannel::AnswerChannel(Framing framing, size_t output_limit, std::shared_ptr<Counts> counts, std::function<void()> wake)
    : framing_(framing), output_limit_(output_limit), counts_(std::move(counts)), wake_(std::move(wake)) {}

void AnswerChannel::wake() {
  if (woken_ || !wake_) return;
  woken_ = true;
  wake_();
}

void AnswerChannel::begin(int status, const HttpHeaders& headers, BodyFraming framing, size_t length) {
  close_ = !framing_.keep_alive || counts_->draining || framing == BodyFraming::until_close || asks_to_close(headers);
  if (status == 204 || status == 304) framing = BodyFraming::none;
  std::string head;
  append_head(head, {status, &headers, framing, length, close_, framing_.http_1_0, counts_->clock->unix_time()});
  output_.reserve(output_.size() + head.size() + length);  // without memory nothing of it is there
  output_ += head;
  body_framing_ = framing_.head_request ? BodyFraming::none : framing;
  ++counts_->by_status[static_cast<size_t>(status)];
}

// The callbacks may hold what must not be destroyed under the lock: they are moved out and die behind it.
void AnswerChannel::send(int status, const HttpHeaders& headers, std::string_view body) {
  std::function<void()> gone, room;
  const std::lock_guard lock(mutex_);
  if (gone_ || phase_ != Phase::waiting) return;
  begin(status, headers, BodyFraming::length, body.size());
  if (body_framing_ != BodyFraming::none) output_ += body;
  phase_ = Phase::ended;
  gone.swap(on_gone_);
  room.swap(on_room_);
  wake();
}

void AnswerChannel::start(int status, const HttpHeaders& headers) {
  const std::lock_guard lock(mutex_);
  if (gone_ || phase_ != Phase::waiting) return;
  begin(status, headers, framing_.http_1_0 ? BodyFraming::until_close : BodyFraming::chunked, 0);
  phase_ = Phase::streaming;
  wake();
}

void AnswerChannel::append_chunk(std::string_view data) {
  if (body_framing_ == BodyFraming::none) return;
  constexpr size_t kMostFraming = 20;
  output_.reserve(output_.size() + data.size() + kMostFraming);  // a chunk is whole or not there
  if (body_framing_ == BodyFraming::chunked) fmt::format_to(std::back_inserter(output_), "{:x}\r\n", data.size());
  output_ += data;
  if (body_framing_ == BodyFraming::chunked) output_ += "\r\n";
}

bool AnswerChannel::write(std::string_view data) {
  const std::lock_guard lock(mutex_);
  if (gone_ || phase_ != Phase::streaming) return false;
  if (data.empty()) return true;  // an empty chunk would be the end
  // Whatever the size when there is room, so that a write after on_room succeeds.
  if (waiting() > output_limit_ / 2 && waiting() + data.size() > output_limit_) return false;
  append_chunk(data);
  wake();
  return true;
}

void AnswerChannel::finish() {
  std::function<void()> gone, room;
  const std::lock_guard lock(mutex_);
  if (gone_ || phase_ != Phase::streaming) return;
  if (body_framing_ == BodyFraming::chunked) output_ += "0\r\n\r\n";
  phase_ = Phase::ended;
  gone.swap(on_gone_);
  room.swap(on_room_);
  wake();
}

void AnswerChannel::abandon() {
  std::function<void()> gone, room;
  {
    const std::lock_guard lock(mutex_);
    gone.swap(on_gone_);
    room.swap(on_room_);
    if (gone_ || phase_ == Phase::ended) return;
    if (phase_ == Phase::streaming) return cut();
  }
  try {
    const HttpAnswer answer = error_answer(500, "the request was given up by the server");
    send(answer.status, answer.headers, answer.body);
  } catch (const std::exception&) {  // no memory even for that
    const std::lock_guard lock(mutex_);
    if (!gone_) cut();
  }
}

void AnswerChannel::cut() {
  phase_ = Phase::ended;
  abandoned_ = true;
  wake();
}

size_t AnswerChannel::waiting_bytes() const {
  const std::lock_guard lock(mutex_);
  return waiting();
}

bool AnswerChannel::gone() const {
  const std::lock_guard lock(mutex_);
  return gone_;
}

void AnswerChannel::on_gone(std::function<void()> callback) {
  {
    const std::lock_guard lock(mutex_);
    if (phase_ == Phase::ended) return;
    if (!gone_) {
      on_gone_.swap(callback);  // an earlier one dies behind the lock
      return;
    }
  }
  callback();
}

void AnswerChannel::on_room(std::function<void()> callback) {
  {
    const std::lock_guard lock(mutex_);
    if (gone_ || phase_ == Phase::ended) return;
    if (waiting() > output_limit_ / 2) {
      on_room_.swap(callback);
      return;
    }
  }
  callback();
}

AnswerChannel::Taken AnswerChannel::take(std::string& output) {
  const std::lock_guard lock(mutex_);
  woken_ = false;
  output.swap(output_);
  in_flight_ += output.size();
  return {phase_ == Phase::ended, abandoned_};
}

void AnswerChannel::sent(size_t bytes) {
  std::function<void()> room;
  {
    const std::lock_guard lock(mutex_);
    in_flight_ -= bytes;
    if (on_room_ && waiting() <= output_limit_ / 2) room.swap(on_room_);
  }
  if (room) room();
}

void AnswerChannel::detach() {
  std::function<void()> gone, room, wake;
  std::string output;
  {
    const std::lock_guard lock(mutex_);
    wake.swap(wake_);
    room.swap(on_room_);
    output.swap(output_);
    in_flight_ = 0;
    if (phase_ == Phase::ended || gone_) return;
    gone_ = true;
    gone.swap(on_gone_);
  }
  ++counts_->left;
  if (gone) gone();
}

bool AnswerChannel::begun() const {
  const std::lock_guard lock(mutex_);
  return phase_ != Phase::waiting;
}

bool AnswerChannel::closes() const {
  const std::lock_guard lock(mutex_);
  return close_;
}

}  // namespace frugal::serve
