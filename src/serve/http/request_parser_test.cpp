#include "serve/http/request_parser.h"

#include <gtest/gtest.h>

#include <random>

#include "base/json.h"
#include "oracle.h"

namespace frugal::serve {
namespace {

using Event = RequestParser::Event;

// Everything that `bytes` mean: requests, then the fault, however they are cut.
std::string outcome(const std::vector<std::string_view>& parts) {
  const HttpLimits limits;
  RequestParser parser(limits);
  std::string text;
  for (std::string_view bytes : parts) {
    for (;;) {
      const Event event = parser.consume(bytes);
      if (event == Event::failed) return text + fmt::format("{} {}", parser.fault().status, parser.fault().message);
      if (event == Event::more) break;
      if (event == Event::head) continue;
      const HttpRequest& request = parser.request();
      text += fmt::format("{} {} {} [", request.method, request.path, request.query);
      for (const auto& [name, value] : request.headers) text += fmt::format("{}={};", name, value);
      text += fmt::format("] {}\n", request.body);
      parser.start_next();
    }
  }
  return text + (parser.started() ? "unfinished" : "");
}

TEST(RequestParser, L16CutsNeverChangeTheOutcome) {
  const std::vector<std::string> inputs = {
      "GET /a?b HTTP/1.1\r\nHost: x\r\nA:  b \r\n\r\n\r\nPOST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.0\r\n\r\n",
      "POST / HTTP/1.1\r\nhost:x\r\ntransfer-encoding:chunked\r\n\r\n1;q\r\na\r\n0a\r\n0123456789\r\n00\r\nT: u\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
      "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
      "GET / HTTP/1.1\r\nHost: x\r\nA\r\n\r\n",
  };
  for (const std::string& input : inputs) {
    const std::string_view all = input;
    const std::string expected = outcome({all});
    for (size_t i = 0; i <= all.size(); ++i) {
      for (size_t j = i; j <= all.size(); ++j) ASSERT_EQ(outcome({all.substr(0, i), all.substr(i, j - i), all.substr(j)}), expected) << i << " " << j;
    }
  }
}

TEST(RequestParser, AnOptionalHeadOfHttp10NeedsNoHost) {
  EXPECT_EQ(outcome({"GET / HTTP/1.0\r\n\r\n"}), "GET /  [] \n");
  EXPECT_EQ(outcome({"GET / HTTP/1.1\r\n\r\n"}), "400 there is no Host header");
}

// A mutated request never leaves the parser in two minds: the bytes of a body are those that its framing announced.
TEST(RequestParser, MutatedRequestsEndInOneWay) {
  std::mt19937 rng(testing::test_seed());
  const std::string seed =
      "POST /a/%41?b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabcPOST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: "
      "chunked\r\n\r\n"
      "3\r\nabc\r\n0\r\n\r\n";
  for (int i = 0; i < 20'000; ++i) {
    std::string input = seed;
    for (unsigned change = 0; change <= rng() % 3; ++change) {
      const size_t at = rng() % input.size();
      switch (rng() % 3) {
        case 0: input[at] = static_cast<char>(rng()); break;
        case 1: input.erase(at, 1 + rng() % 3); break;
        default: input.insert(at, 1, "\r\n:; \t\0,%/09aF"[rng() % 14]);
      }
    }
    const std::string_view all = input;
    const size_t cut = rng() % all.size();
    ASSERT_EQ(outcome({all}), outcome({all.substr(0, cut), all.substr(cut)})) << printable(input, 500);
  }
}

// h11 writes random requests; what it says of them is what is read.
TEST(RequestParser, ReadsWhatH11Writes) {
  const Json cases = Json::parse(testing::run_oracle("make_http_requests.py", std::to_string(testing::test_seed()) + " 300"));
  ASSERT_EQ(cases.size(), 300u);
  const HttpLimits limits;
  for (const Json& each : cases) {
    std::string bytes;
    for (const Json& byte : each["bytes"]) bytes += static_cast<char>(byte.get<int>());
    std::string_view rest = bytes;
    RequestParser parser(limits);
    Event event = Event::more;
    while ((event = parser.consume(rest)) == Event::head) {}
    ASSERT_EQ(event, Event::complete) << parser.fault().message << "\n" << bytes;
    EXPECT_EQ(rest, "");
    const HttpRequest& request = parser.request();
    EXPECT_EQ(request.method, each["method"]);
    EXPECT_EQ(request.path, each["path"]);
    EXPECT_EQ(request.query, each["query"]);
    EXPECT_EQ(request.body, each["body"]);
    EXPECT_EQ(parser.keep_alive(), each["keep_alive"].get<bool>());
    Json headers = Json::array();
    for (const auto& [name, value] : request.headers) headers.push_back({name, value});
    EXPECT_EQ(headers, each["headers"]);
  }
}

}  // namespace
}  // namespace frugal::serve
