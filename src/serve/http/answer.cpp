#include "serve/http/answer.h"

#include <algorithm>
#include <array>
#include <ctime>

#include "base/error.h"
#include "base/json.h"

namespace frugal::serve {
namespace {

std::string_view reason_of(int status) {
  switch (status) {
    case 200: return "OK";
    case 201: return "Created";
    case 202: return "Accepted";
    case 204: return "No Content";
    case 304: return "Not Modified";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 408: return "Request Timeout";
    case 409: return "Conflict";
    case 411: return "Length Required";
    case 413: return "Content Too Large";
    case 414: return "URI Too Long";
    case 415: return "Unsupported Media Type";
    case 417: return "Expectation Failed";
    case 422: return "Unprocessable Content";
    case 429: return "Too Many Requests";
    case 431: return "Request Header Fields Too Large";
    case 500: return "Internal Server Error";
    case 501: return "Not Implemented";
    case 503: return "Service Unavailable";
    case 504: return "Gateway Timeout";
    case 505: return "HTTP Version Not Supported";
    default: return "Other";
  }
}

std::string_view error_type_of(int status) {
  switch (status) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 404: return "not_found_error";
    case 429: return "rate_limit_error";
    case 501: return "not_supported_error";
    case 503: return "unavailable_error";
    default: return status >= 500 ? "server_error" : "invalid_request_error";
  }
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  return out;
}

bool is_name(std::string_view name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
  });
}

bool is_value(std::string_view value) {
  return std::none_of(value.begin(), value.end(), [](char c) { return (static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7f; });
}

}  // namespace

HttpAnswer error_answer(int status, std::string_view message, std::string_view param, std::string_view code) {
  const auto text_or_null = [](std::string_view text) { return text.empty() ? Json(nullptr) : Json(text); };
  const Json error = {{"message", message}, {"type", error_type_of(status)}, {"param", text_or_null(param)}, {"code", text_or_null(code)}};
  HttpAnswer answer{status, {{"Content-Type", "application/json"}}, {}};
  // What is not UTF-8 in a message is replaced, not thrown about.
  answer.body = Json{{"error", error}}.dump(-1, ' ', false, Json::error_handler_t::replace);
  return answer;
}

std::string http_date(int64_t unix_time) {
  static constexpr std::array<const char*, 7> kDays = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  static constexpr std::array<const char*, 12> kMonths = {"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  const std::time_t time = static_cast<std::time_t>(unix_time);
  std::tm utc{};
  ::gmtime_r(&time, &utc);
  return fmt::format("{}, {:02} {} {:04} {:02}:{:02}:{:02} GMT", kDays[static_cast<size_t>(utc.tm_wday)], utc.tm_mday, kMonths[static_cast<size_t>(utc.tm_mon)],
                     utc.tm_year + 1900, utc.tm_hour, utc.tm_min, utc.tm_sec);
}

bool asks_to_close(const HttpHeaders& headers) {
  return std::any_of(headers.begin(), headers.end(), [](const auto& header) { return lower(header.first) == "connection" && lower(header.second) == "close"; });
}

void append_head(std::string& out, const AnswerHead& head) {
  if (head.status < 200 || head.status > 599) fail(ErrorKind::internal, "an answer has the status {}, 200 to 599 are possible", head.status);
  for (const auto& [name, value] : *head.headers) {  // before anything is written
    if (!is_name(name) || !is_value(value)) fail(ErrorKind::internal, "the header {}: {} would break an answer", printable(name), printable(value));
  }
  fmt::format_to(std::back_inserter(out), "HTTP/1.1 {} {}\r\nDate: {}\r\n", head.status, reason_of(head.status), http_date(head.unix_time));
  if (head.framing == BodyFraming::length) fmt::format_to(std::back_inserter(out), "Content-Length: {}\r\n", head.length);
  if (head.framing == BodyFraming::chunked) out += "Transfer-Encoding: chunked\r\n";
  if (head.close) {
    out += "Connection: close\r\n";
  } else if (head.http_1_0) {
    out += "Connection: keep-alive\r\n";
  }
  for (const auto& [name, value] : *head.headers) {
    const std::string known = lower(name);
    if (known == "date" || known == "content-length" || known == "transfer-encoding" || known == "connection") continue;
    out.append(name).append(": ").append(value).append("\r\n");
  }
  out += "\r\n";
}

}  // namespace frugal::serve
