// A stream of events on one answer. Any thread; never blocks: what the client does not take waits here, up to a limit.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

#include "serve/http/http.h"

namespace frugal::serve {

class EventStream : public std::enable_shared_from_this<EventStream> {
 public:
  EventStream(std::shared_ptr<HttpResponse> response, std::string content_type) : response_(std::move(response)), content_type_(std::move(content_type)) {}
  // Whole frames. false: the client has left, or is so far behind that it is given up.
  bool send(std::string_view frames);
  // A comment that clients skip, so that what lies between does not take a long prompt for a dead connection: for server-sent events of which
  // nothing was sent since the last time.
  void ping();
  // A whole answer in place of the stream. false, and nothing is sent, when the stream has begun.
  bool answer_instead(HttpAnswer answer);
  void finish();  // after what waits

 private:
  bool flush();         // under the lock; true: room is to be asked for, without the lock, since the answer may come at once
  void ask_for_room();  // keeps this alive until all is sent
  std::shared_ptr<HttpResponse> response_;
  std::string content_type_;
  std::mutex mutex_;
  std::string waiting_;
  bool started_ = false, asked_ = false, finishing_ = false, sent_ = true;
};

}  // namespace frugal::serve
