// Server-sent events on one answer. Any thread; never blocks: what the client does not take waits here, up to a limit.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "serve/http/http.h"

namespace frugal::serve {

class EventStream : public std::enable_shared_from_this<EventStream> {
 public:
  explicit EventStream(std::shared_ptr<HttpResponse> response) : response_(std::move(response)) {}
  // "data: ...\n\n". false: the client has left, or is so far behind that it is given up.
  bool send(std::string_view data);
  void finish();  // after what waits

 private:
  void flush();  // under the lock
  std::shared_ptr<HttpResponse> response_;
  std::mutex mutex_;
  std::string waiting_;
  bool started_ = false, asked_ = false, finishing_ = false;
};

}  // namespace frugal::serve
