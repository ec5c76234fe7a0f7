// Bytes of a connection as requests: however they are cut, the outcome is one; a path that comes out is in its normal form; what
// a request holds stays within the limits. The first byte says where to cut.
#include <algorithm>
#include <cstdint>

#include "serve/http/request_parser.h"
#include "serve/http/target.h"

namespace {

using namespace frugal::serve;

void require(bool condition) {
  if (!condition) __builtin_trap();
}

constexpr HttpLimits kLimits = {.request_line = 200, .headers = 400, .header_count = 10, .body = 300};

void check(const HttpRequest& request) {
  const std::string& path = request.path;
  require(path == "*" || path.starts_with('/'));
  require(path.find("//") == path.npos && (path + "/").find("/./") == path.npos && (path + "/").find("/../") == path.npos);
  require(std::none_of(path.begin(), path.end(), [](char c) { return (static_cast<unsigned char>(c) < 0x20) || c == 0x7f; }));
  require(request.body.size() <= kLimits.body || request.header("content-length"));
  require(request.headers.size() <= kLimits.header_count);
}

std::string outcome(std::string_view first, std::string_view second) {
  RequestParser parser(kLimits);
  std::string text;
  for (std::string_view bytes : {first, second}) {
    for (;;) {
      const RequestParser::Event event = parser.consume(bytes);
      if (event == RequestParser::Event::failed) return text + parser.fault().message;
      if (event == RequestParser::Event::more) break;
      if (event == RequestParser::Event::head) {
        require(parser.http_1_0() || is_authority(parser.host()));
        continue;
      }
      const HttpRequest& request = parser.request();
      check(request);
      text += request.method + " " + request.path + "?" + request.query + "\n" + request.body + "\n";
      for (const auto& [name, value] : request.headers) text += name + ": " + value + "\n";
      parser.start_next();
    }
  }
  return text + (parser.started() ? "..." : ".");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view all(reinterpret_cast<const char*>(data) + 1, size - 1);
  const size_t cut = all.empty() ? 0 : data[0] % (all.size() + 1);
  require(outcome(all, {}) == outcome(all.substr(0, cut), all.substr(cut)));
  return 0;
}
