#include "serve/event_stream.h"

namespace frugal::serve {
namespace {

constexpr size_t kMostWaiting = size_t{1} << 20;

}  // namespace

bool EventStream::answer_instead(HttpAnswer answer) {
  const std::lock_guard lock(mutex_);
  if (started_ || std::exchange(finishing_, true)) return false;
  response_->send(std::move(answer));
  return true;
}

void EventStream::ping() {
  {
    const std::lock_guard lock(mutex_);
    if (std::exchange(sent_, false) || finishing_ || !waiting_.empty() || !content_type_.starts_with("text/event-stream")) return;
  }
  send(": ping\n\n");
}

bool EventStream::send(std::string_view frames) {
  bool ask = false, behind = false;
  {
    const std::lock_guard lock(mutex_);
    sent_ = true;
    if (!started_) {
      response_->start(200, {{"Content-Type", content_type_}, {"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}});
      started_ = true;
    }
    behind = waiting_.size() > kMostWaiting;
    if (!behind) waiting_.append(frames);
    ask = flush();
  }
  if (ask) ask_for_room();
  return !behind && !response_->gone();
}

void EventStream::finish() {
  bool ask = false;
  {
    const std::lock_guard lock(mutex_);
    if (std::exchange(finishing_, true)) return;
    ask = flush();
  }
  if (ask) ask_for_room();
}

bool EventStream::flush() {
  if (!waiting_.empty() && response_->write(waiting_)) waiting_.clear();
  if (response_->gone()) waiting_.clear();
  if (waiting_.empty()) {
    if (finishing_) response_->finish();
    return false;
  }
  return !std::exchange(asked_, true);
}

void EventStream::ask_for_room() {
  response_->on_room([self = shared_from_this()] {
    bool ask = false;
    {
      const std::lock_guard lock(self->mutex_);
      self->asked_ = false;
      ask = self->flush();
    }
    if (ask) self->ask_for_room();
  });
}

}  // namespace frugal::serve
