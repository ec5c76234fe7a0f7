#include "io/http_client.h"

#include <curl/curl.h>

#include <algorithm>
#include <exception>
#include <memory>

#include "base/error.h"

namespace frugal::io {
namespace {

constexpr long kConnectSeconds = 15;
constexpr long kSilentSeconds = 60;
constexpr size_t kMaxHeaders = 200;

struct Transfer {
  HttpResponse response;
  const HttpBody* body = nullptr;
  std::exception_ptr error;  // libcurl is C: an exception waits here until it returns
};

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return out;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\r' || text.back() == '\n')) text.remove_suffix(1);
  return text;
}

size_t on_header(char* data, size_t size, size_t count, void* target) {
  auto& transfer = *static_cast<Transfer*>(target);
  const std::string_view line(data, size * count);
  if (line.starts_with("HTTP/")) {  // a new response, after "100 Continue" for one
    transfer.response.headers.clear();
    return line.size();
  }
  const size_t colon = line.find(':');
  if (colon == line.npos || transfer.response.headers.size() >= kMaxHeaders) return line.size();
  try {
    transfer.response.headers[lower(line.substr(0, colon))] = std::string(trimmed(line.substr(colon + 1)));
  } catch (...) {
    transfer.error = std::current_exception();
    return 0;
  }
  return line.size();
}

}  // namespace

const std::string& HttpResponse::header(std::string_view name) const {
  static const std::string kNone;
  const auto it = headers.find(name);
  return it == headers.end() ? kNone : it->second;
}

namespace {

struct Handle {
  CURL* curl = nullptr;
  Transfer transfer;
};

size_t on_body(char* data, size_t size, size_t count, void* target) {
  auto& handle = *static_cast<Handle*>(target);
  try {
    if (handle.transfer.response.status == 0) {
      long status = 0;
      curl_easy_getinfo(handle.curl, CURLINFO_RESPONSE_CODE, &status);
      handle.transfer.response.status = static_cast<int>(status);
    }
    if (*handle.transfer.body) (*handle.transfer.body)(handle.transfer.response, std::as_bytes(std::span(data, size * count)));
  } catch (...) {
    handle.transfer.error = std::current_exception();
    return 0;
  }
  return size * count;
}

}  // namespace

HttpResponse http_request(const HttpRequest& request, const HttpBody& body) {
  static const CURLcode started = curl_global_init(CURL_GLOBAL_DEFAULT);
  if (started != CURLE_OK) fail(ErrorKind::internal, "libcurl does not start: {}", curl_easy_strerror(started));
  const std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> curl(curl_easy_init(), curl_easy_cleanup);
  if (!curl) fail(ErrorKind::out_of_memory, "{}: no memory for a request", request.url);
  Handle handle{curl.get(), {}};
  handle.transfer.body = &body;
  curl_slist* list = nullptr;
  const auto add = [&](const std::string& line) { list = curl_slist_append(list, line.c_str()); };
  add("Accept-Encoding: identity");  // sizes and hashes are of the file itself
  if (!request.token.empty()) add("Authorization: Bearer " + request.token);
  if (request.range_begin > 0) add(fmt::format("Range: bytes={}-", request.range_begin));
  const std::unique_ptr<curl_slist, decltype(&curl_slist_free_all)> headers(list, curl_slist_free_all);
  curl_easy_setopt(curl.get(), CURLOPT_URL, request.url.c_str());
  curl_easy_setopt(curl.get(), CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl.get(), CURLOPT_NOBODY, request.head ? 1L : 0L);
  curl_easy_setopt(curl.get(), CURLOPT_FOLLOWLOCATION, 0L);
  curl_easy_setopt(curl.get(), CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl.get(), CURLOPT_USERAGENT, "frugal/0.1");
  curl_easy_setopt(curl.get(), CURLOPT_HTTPHEADER, headers.get());
  curl_easy_setopt(curl.get(), CURLOPT_CONNECTTIMEOUT, kConnectSeconds);
  curl_easy_setopt(curl.get(), CURLOPT_LOW_SPEED_LIMIT, 1L);
  curl_easy_setopt(curl.get(), CURLOPT_LOW_SPEED_TIME, kSilentSeconds);
  curl_easy_setopt(curl.get(), CURLOPT_HEADERFUNCTION, on_header);
  curl_easy_setopt(curl.get(), CURLOPT_HEADERDATA, &handle.transfer);
  curl_easy_setopt(curl.get(), CURLOPT_WRITEFUNCTION, on_body);
  curl_easy_setopt(curl.get(), CURLOPT_WRITEDATA, &handle);
  const CURLcode code = curl_easy_perform(curl.get());
  if (handle.transfer.error) std::rethrow_exception(handle.transfer.error);
  if (code != CURLE_OK) fail(ErrorKind::io, "{}: {}", printable(request.url, 300), curl_easy_strerror(code));
  long status = 0;
  curl_easy_getinfo(curl.get(), CURLINFO_RESPONSE_CODE, &status);
  handle.transfer.response.status = static_cast<int>(status);
  return std::move(handle.transfer.response);
}

std::string percent_encode(const std::string& text) {
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_' || c == '~';
    out += plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return out;
}

std::string origin_of(const std::string& url) {
  const std::unique_ptr<CURLU, decltype(&curl_url_cleanup)> parsed(curl_url(), curl_url_cleanup);
  if (!parsed || curl_url_set(parsed.get(), CURLUPART_URL, url.c_str(), 0) != CURLUE_OK) return "";
  const auto part = [&](CURLUPart which) {
    char* text = nullptr;
    if (curl_url_get(parsed.get(), which, &text, CURLU_DEFAULT_PORT) != CURLUE_OK) return std::string();
    std::string copy = lower(text);
    curl_free(text);
    return copy;
  };
  const std::string scheme = part(CURLUPART_SCHEME);
  if (scheme != "http" && scheme != "https") return "";
  return fmt::format("{}://{}:{}", scheme, part(CURLUPART_HOST), part(CURLUPART_PORT));
}

std::string resolve_location(const std::string& url, const std::string& location) {
  if (!origin_of(location).empty()) return location;
  const bool is_path = location.size() > 1 && location[0] == '/' && location[1] != '/' && location[1] != '\\';
  return is_path ? origin_of(url) + location : "";
}

}  // namespace frugal::io
