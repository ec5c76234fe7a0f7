// The head of an answer as bytes.
#pragma once

#include <string>

#include "serve/http/http.h"

namespace frugal::serve {

enum class BodyFraming { length, chunked, until_close, none };

struct AnswerHead {
  int status = 200;
  const HttpHeaders* headers = nullptr;
  BodyFraming framing = BodyFraming::length;
  size_t length = 0;
  bool close = false;
  bool http_1_0 = false;
  int64_t unix_time = 0;
};

// Throws Error{internal} for a status outside 200..599 and for headers that would break the framing.
void append_head(std::string& out, const AnswerHead& head);

// Whether `headers` hold "Connection: close".
bool asks_to_close(const HttpHeaders& headers);

// "Sun, 06 Nov 1994 08:49:37 GMT"
std::string http_date(int64_t unix_time);

}  // namespace frugal::serve
