// One HTTP request over libcurl. Redirects are not followed here: who may see the token is the caller's decision.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>

namespace frugal::io {

struct HttpRequest {
  std::string url;  // http:// or https://
  bool head = false;
  std::string token;         // sent as "Authorization: Bearer ..." when not empty
  uint64_t range_begin = 0;  // "Range: bytes=<begin>-" when above 0
};

struct HttpResponse {
  int status = 0;
  std::map<std::string, std::string, std::less<>> headers;  // lower-case names, the last of each
  const std::string& header(std::string_view name) const;   // "" when absent
};

// Called with each piece of the body; may throw, which ends the transfer and is thrown on.
using HttpBody = std::function<void(const HttpResponse& response, std::span<const std::byte> piece)>;

// Throws Error{io} when the server cannot be reached, the transfer is cut, or nothing arrives for 60 s.
HttpResponse http_request(const HttpRequest& request, const HttpBody& body = {});

std::string percent_encode(const std::string& text);

// "https://host:port" of an absolute URL, lower-case and with the port that the scheme implies; "" for a relative one.
std::string origin_of(const std::string& url);
// `location` as seen from `url`: an absolute URL as it is, an absolute path on the same origin. "" for anything else.
std::string resolve_location(const std::string& url, const std::string& location);

}  // namespace frugal::io
