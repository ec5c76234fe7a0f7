#include "serve/event_stream.h"

namespace frugal::serve {
namespace {

constexpr size_t kMostWaiting = size_t{1} << 20;

}  // namespace

bool EventStream::send(std::string_view frames) {
  const std::lock_guard lock(mutex_);
  if (!started_) {
    started_ = true;
    response_->start(200, {{"Content-Type", content_type_}, {"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}});
  }
  waiting_.append(frames);
  flush();
  return !response_->gone() && waiting_.size() <= kMostWaiting;
}

void EventStream::finish() {
  const std::lock_guard lock(mutex_);
  finishing_ = true;
  flush();
}

void EventStream::flush() {
  if (!waiting_.empty() && response_->write(waiting_)) waiting_.clear();
  if (response_->gone()) waiting_.clear();
  if (waiting_.empty()) {
    if (finishing_) response_->finish();
    return;
  }
  if (asked_) return;
  asked_ = true;
  response_->on_room([self = weak_from_this()] {
    const auto stream = self.lock();
    if (!stream) return;
    const std::lock_guard lock(stream->mutex_);
    stream->asked_ = false;
    stream->flush();
  });
}

}  // namespace frugal::serve
