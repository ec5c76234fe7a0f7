#include "serve/http/request_parser.h"

#include <algorithm>
#include <array>

#include "serve/http/target.h"

namespace frugal::serve {
namespace {

constexpr size_t kMaxMethod = 24, kMaxChunkLine = 256, kMaxChunkDigits = 16, kVersionBytes = 8;

// What must not come twice, and must not come in a trailer.
constexpr std::array<std::string_view, 8> kSingle = {"host",      "content-length", "transfer-encoding", "authorization",
                                                     "x-api-key", "content-type",   "content-encoding",  "expect"};

bool is_token(char c) {
  if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')) return true;
  return c != '\0' && std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}

bool is_control(char c) { return (static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7f; }

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

bool equal_ignoring_case(std::string_view a, std::string_view lower_text) {
  return a.size() == lower_text.size() && std::equal(a.begin(), a.end(), lower_text.begin(), [](char x, char y) { return lower(x) == y; });
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  const char l = lower(c);
  return l >= 'a' && l <= 'f' ? l - 'a' + 10 : -1;
}

}  // namespace

const std::string* HttpRequest::header(std::string_view lower_name) const {
  for (const auto& [name, value] : headers) {
    if (name == lower_name) return &value;
  }
  return nullptr;
}

bool RequestParser::refuse(int status, const char* message, const char* code) {
  fault_ = {status, message, code};
  state_ = State::failed;
  return false;
}

void RequestParser::start_next() {
  RequestParser fresh(*limits_);
  std::swap(*this, fresh);  // an assignment would keep the memory of the strings
}

RequestParser::Event RequestParser::consume(std::string_view& bytes) {
  if (state_ == State::head_done) {
    if (!has_body()) {
      state_ = State::done;
    } else {
      state_ = chunked_ ? State::chunk_size : State::body;
      remaining_ = length_;
    }
  }
  while (state_ != State::done && state_ != State::failed && !bytes.empty()) {
    if (state_ == State::body || state_ == State::chunk_data) {
      take_body(bytes);
      continue;
    }
    const char c = bytes.front();
    bytes.remove_prefix(1);
    if (step(c) && state_ == State::head_done) return Event::head;
  }
  if (state_ == State::failed) return Event::failed;
  return state_ == State::done ? Event::complete : Event::more;
}

void RequestParser::take_body(std::string_view& bytes) {
  const size_t count = static_cast<size_t>(std::min<uint64_t>(remaining_, bytes.size()));
  request_.body.append(bytes.substr(0, count));
  bytes.remove_prefix(count);
  remaining_ -= count;
  if (remaining_ == 0) state_ = chunked_ ? State::chunk_data_cr : State::done;
}

bool RequestParser::step(char c) {
  if (state_ <= State::request_line_lf) return step_request_line(c);
  if (state_ <= State::head_lf) return step_field(c);
  return step_chunk(c);
}

bool RequestParser::step_request_line(char c) {
  switch (state_) {
    case State::start:
      // One empty line before a request is skipped, as RFC 9112, 2.2 asks: some clients end a body with it.
      if (c == '\r' && !skipped_line_) {
        state_ = State::start_lf;
        return true;
      }
      state_ = State::method;
      [[fallthrough]];
    case State::method:
      ++line_bytes_;
      if (c == ' ' && !request_.method.empty()) {
        state_ = State::target;
        return true;
      }
      if (!is_token(c)) return refuse(400, "the request line has no method");
      if (request_.method.size() == kMaxMethod) return refuse(400, "the method is too long");
      request_.method += c;
      return true;
    case State::start_lf:
      if (c != '\n') return refuse(400, "a line ends in a bare CR");
      skipped_line_ = true;
      state_ = State::start;
      return true;
    case State::target:
      if (++line_bytes_ > limits_->request_line) return refuse(414, "the request line is too long");
      if (c == ' ') {
        state_ = State::version;
        return true;
      }
      if (c < 0x21 || c == 0x7f) return refuse(400, "the target of the request has a character that must be escaped");
      target_ += c;
      return true;
    case State::version:
      if (c == '\r') {
        state_ = State::request_line_lf;
        return true;
      }
      if (++line_bytes_ > limits_->request_line) return refuse(414, "the request line is too long");
      if (value_.size() == kVersionBytes) return refuse(400, "the request line does not end in a version of HTTP");
      value_ += c;
      return true;
    default:
      if (c != '\n') return refuse(400, "a line ends in a bare CR");
      return end_request_line();
  }
}

bool RequestParser::end_request_line() {
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  if (value_.size() != kVersionBytes || !value_.starts_with("HTTP/") || !digit(value_[5]) || value_[6] != '.' || !digit(value_[7])) {
    return refuse(400, "the request line does not end in a version of HTTP");
  }
  if (value_ != "HTTP/1.1" && value_ != "HTTP/1.0") return refuse(505, "only HTTP/1.1 and HTTP/1.0 are spoken here");
  http_1_0_ = value_.back() == '0';
  value_.clear();
  Target target;
  if (const char* wrong = read_target(target_, request_.method, target)) return refuse(400, wrong);
  request_.path = std::move(target.path);
  request_.query = std::move(target.query);
  host_ = std::move(target.authority);
  target_ = {};
  state_ = State::field_start;
  return true;
}

bool RequestParser::step_field(char c) {
  if (state_ != State::head_lf && c != '\n' && !(state_ == State::field_start && c == '\r') && ++field_bytes_ + 1 > limits_->headers) {
    return refuse(431, "the headers are too long");  // the line end is yet to come: its LF is counted ahead
  }
  switch (state_) {
    case State::field_start:
      if (c == '\r') {
        state_ = State::head_lf;
        return true;
      }
      if (c == ' ' || c == '\t') return refuse(400, "a header is folded over lines");
      if (++field_count_ > limits_->header_count) return refuse(431, "there are too many headers");
      state_ = State::name;
      [[fallthrough]];
    case State::name:
      if (c == ':' && !name_.empty()) {
        state_ = State::value_start;
        return true;
      }
      if (!is_token(c)) return refuse(400, "a header has no valid name");
      name_ += lower(c);
      return true;
    case State::value_start:
      if (c == ' ' || c == '\t') return true;
      state_ = State::value;
      [[fallthrough]];
    case State::value:
      if (c == '\r') {
        state_ = State::field_lf;
        return true;
      }
      if (is_control(c)) return refuse(400, "a header has a control character in its value");
      value_ += c;
      return true;
    case State::field_lf:
      if (c != '\n') return refuse(400, "a line ends in a bare CR");
      ++field_bytes_;
      return end_field();
    default:
      if (c != '\n') return refuse(400, "a line ends in a bare CR");
      return end_head();
  }
}

bool RequestParser::end_field() {
  value_padded_ = !value_.empty() && (value_.back() == ' ' || value_.back() == '\t');
  const std::string_view value = trimmed(value_);
  const auto single = std::find(kSingle.begin(), kSingle.end(), name_);
  if (single != kSingle.end()) {
    if (trailers_) return refuse(400, "a header that belongs to the head comes after the body");
    const uint32_t bit = uint32_t{1} << (single - kSingle.begin());
    if (seen_ & bit) return refuse(400, "a header comes twice that must be single");
    seen_ |= bit;
  }
  if (name_ == "transfer-encoding" && !end_transfer_encoding(value)) return false;
  if (name_ == "content-length" && !end_content_length(value)) return false;
  if (name_ == "connection") read_connection(value);
  if (name_ == "content-encoding" && !equal_ignoring_case(value, "identity")) return refuse(415, "bodies must not be encoded");
  if (name_ == "expect" && !http_1_0_) {
    if (!equal_ignoring_case(value, "100-continue")) return refuse(417, "only 100-continue can be expected");
    expects_continue_ = true;
  }
  if (name_ == "host") {
    if (!is_authority(value)) return refuse(400, "the Host header is not a host");
    if (!host_.empty() && host_ != value) return refuse(400, "the Host header is not the host of the target");
    host_ = value;
  }
  if (!trailers_) request_.headers.emplace_back(std::move(name_), std::string(value));
  name_.clear();
  value_.clear();
  state_ = State::field_start;
  return true;
}

bool RequestParser::end_transfer_encoding(std::string_view value) {
  if (http_1_0_ || value_padded_ || !equal_ignoring_case(value, "chunked")) return refuse(400, "the only transfer encoding is chunked, in HTTP/1.1");
  chunked_ = true;
  return true;
}

bool RequestParser::end_content_length(std::string_view value) {
  if (value.empty() || value_padded_) return refuse(400, "Content-Length is not a number");
  for (const char c : value) {
    if (c < '0' || c > '9') return refuse(400, "Content-Length is not a number");
    if (__builtin_mul_overflow(length_, uint64_t{10}, &length_) || __builtin_add_overflow(length_, uint64_t(c - '0'), &length_)) {
      return refuse(400, "Content-Length is too large a number");
    }
  }
  has_length_ = true;
  return true;
}

void RequestParser::read_connection(std::string_view value) {
  while (!value.empty()) {
    const size_t comma = std::min(value.find(','), value.size());
    const std::string_view option = trimmed(value.substr(0, comma));
    close_ = close_ || equal_ignoring_case(option, "close");
    keep_alive_ = keep_alive_ || equal_ignoring_case(option, "keep-alive");
    value.remove_prefix(std::min(comma + 1, value.size()));
  }
}

bool RequestParser::end_head() {
  if (trailers_) {
    state_ = State::done;
    return true;
  }
  if (chunked_ && has_length_) return refuse(400, "both Content-Length and Transfer-Encoding");
  const bool has_host = seen_ & 1;
  if (!http_1_0_ && !has_host) return refuse(400, "there is no Host header");
  field_bytes_ = field_count_ = 0;
  line_bytes_ = 0;
  state_ = State::head_done;
  return true;
}

bool RequestParser::step_chunk(char c) {
  if (state_ != State::head_done && ++framing_bytes_ > limits_->headers + 8 * request_.body.size()) {
    return refuse(400, "the chunks are mostly framing");
  }
  switch (state_) {
    case State::chunk_size:
      if (const int digit = hex_digit(c); digit >= 0) {
        if (++line_bytes_ > kMaxChunkDigits) return refuse(400, "the size of a chunk has too many digits");
        remaining_ = remaining_ * 16 + static_cast<uint64_t>(digit);
        return true;
      }
      if (line_bytes_ == 0 || (c != '\r' && c != ';')) return refuse(400, "the size of a chunk is not hexadecimal");
      state_ = c == '\r' ? State::chunk_size_lf : State::chunk_extension;
      return true;
    case State::chunk_extension:
      if (c == '\r') {
        state_ = State::chunk_size_lf;
        return true;
      }
      if (is_control(c)) return refuse(400, "a chunk has a control character in its extension");
      if (++line_bytes_ > kMaxChunkLine) return refuse(400, "the extension of a chunk is too long");
      return true;
    case State::chunk_size_lf:
      if (c != '\n') return refuse(400, "a line ends in a bare CR");
      return begin_chunk();
    case State::chunk_data_cr:
      if (c != '\r') return refuse(400, "a chunk does not end where its size says");
      state_ = State::chunk_data_lf;
      return true;
    default:
      if (c != '\n') return refuse(400, "a chunk does not end where its size says");
      state_ = State::chunk_size;
      return true;
  }
}

bool RequestParser::begin_chunk() {
  line_bytes_ = 0;
  if (remaining_ == 0) {
    trailers_ = true;
    state_ = State::field_start;
    return true;
  }
  if (remaining_ > limits_->body - request_.body.size()) return refuse(413, "the body is too large", "request_too_large");
  state_ = State::chunk_data;
  return true;
}

}  // namespace frugal::serve
