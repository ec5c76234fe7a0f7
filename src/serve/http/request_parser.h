// An incremental reader of HTTP/1.1 requests, byte by byte, so that an answer never depends on how the bytes were cut. It is
// stricter than RFC 9112 wherever two readers could disagree: line ends are CRLF only, no folded lines, one Content-Length of
// digits only or one "chunked", no repeated header of those that decide something, hexadecimal digits only in chunk sizes.
#pragma once

#include "serve/http/http.h"

namespace frugal::serve {

struct HttpFault {
  int status = 0;
  const char* message = "";
  const char* code = "";  // empty: none
};

class RequestParser {
 public:
  enum class Event {
    more,      // all bytes are taken
    head,      // the head is whole; consume() again for the body
    complete,  // request() is whole; start_next() before the next consume()
    failed,    // fault() says why; nothing more is read
  };

  explicit RequestParser(const HttpLimits& limits) : limits_(&limits) {}

  Event consume(std::string_view& bytes);  // cuts off what it took
  void start_next();

  HttpRequest& request() { return request_; }
  const HttpFault& fault() const { return fault_; }
  bool started() const { return state_ != State::start; }
  bool past_head() const { return trailers_ || state_ >= State::head_done; }
  size_t body_bytes() const { return request_.body.size(); }

  // Of a whole head.
  bool http_1_0() const { return http_1_0_; }
  bool keep_alive() const { return http_1_0_ ? keep_alive_ && !close_ : !close_; }
  bool has_length() const { return has_length_ || chunked_; }
  bool has_body() const { return length_ > 0 || chunked_; }
  uint64_t content_length() const { return length_; }
  bool expects_continue() const { return expects_continue_; }
  const std::string& host() const { return host_; }  // of the Host header and an absolute target, as sent

 private:
  enum class State : uint8_t {
    start,
    start_lf,
    method,
    target,
    version,
    request_line_lf,
    field_start,
    name,
    value_start,
    value,
    field_lf,
    head_lf,
    head_done,
    body,
    chunk_size,
    chunk_extension,
    chunk_size_lf,
    chunk_data,
    chunk_data_cr,
    chunk_data_lf,
    done,
    failed,
  };

  bool step(char c);  // one byte; false: fault
  bool step_request_line(char c);
  bool step_field(char c);
  bool step_chunk(char c);
  bool end_request_line();
  bool end_field();
  bool end_head();
  bool end_transfer_encoding(std::string_view value);
  bool end_content_length(std::string_view value);
  void read_connection(std::string_view value);
  bool begin_chunk();
  void take_body(std::string_view& bytes);
  bool refuse(int status, const char* message, const char* code = "");

  const HttpLimits* limits_;
  HttpRequest request_;
  HttpFault fault_;
  std::string target_, name_, value_, host_;
  uint64_t length_ = 0;     // Content-Length
  uint64_t remaining_ = 0;  // of the body or the chunk
  size_t line_bytes_ = 0;   // of the request line or the chunk's line
  size_t field_bytes_ = 0;  // of all field lines
  size_t field_count_ = 0;
  size_t framing_bytes_ = 0;  // of a chunked body
  uint32_t seen_ = 0;         // bits of kSingle
  State state_ = State::start;
  bool skipped_line_ = false, http_1_0_ = false, keep_alive_ = false, close_ = false, has_length_ = false, chunked_ = false;
  bool expects_continue_ = false, trailers_ = false, value_padded_ = false;
};

}  // namespace frugal::serve
