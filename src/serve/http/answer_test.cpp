#include "serve/http/answer.h"

#include <gtest/gtest.h>

#include <ctime>
#include <random>

#include "base/json.h"
#include "oracle.h"

namespace frugal::serve {
namespace {

TEST(Answer, DatesAreThoseOfStrftime) {
  std::mt19937_64 rng(testing::test_seed());
  EXPECT_EQ(http_date(784111777), "Sun, 06 Nov 1994 08:49:37 GMT");  // RFC 9110
  for (int i = 0; i < 1000; ++i) {
    const std::time_t time = static_cast<std::time_t>(rng() % 4'000'000'000u);
    char text[64];
    std::strftime(text, sizeof(text), "%a, %d %b %Y %H:%M:%S GMT", std::gmtime(&time));
    ASSERT_EQ(http_date(time), text);
  }
}

TEST(Answer, ErrorsHaveTheShapeOfOpenAi) {
  const HttpAnswer plain = error_answer(401, "no key");
  EXPECT_EQ(plain.body, R"({"error":{"message":"no key","type":"authentication_error","param":null,"code":null}})");
  const HttpAnswer full = error_answer(400, "\"n\" is \xff", "n", "out_of_range");
  EXPECT_EQ(full.body, "{\"error\":{\"message\":\"\\\"n\\\" is \xef\xbf\xbd\",\"type\":\"invalid_request_error\",\"param\":\"n\",\"code\":\"out_of_range\"}}");
  EXPECT_EQ(full.status, 400);
}

TEST(Answer, HeadersCannotBreakTheFraming) {
  const auto head = [](const HttpHeaders& headers) {
    std::string out;
    append_head(out, {200, &headers, BodyFraming::length, 3, false, false, 0});
    return out;
  };
  EXPECT_EQ(head({{"A", "b"}, {"content-length", "9"}, {"Transfer-Encoding", "chunked"}, {"DATE", "x"}}),
            "HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Length: 3\r\nA: b\r\n\r\n");
  for (const auto& [name, value] : HttpHeaders{{"A", "b\r\nC: d"}, {"A", "b\n"}, {"A", std::string("\0", 1)}, {"A: b", "c"}, {"", "c"}, {"A\r", "c"}}) {
    EXPECT_THROW(head({{name, value}}), Error) << name << value;
  }
  const HttpHeaders none;
  std::string out;
  for (const int status : {0, 100, 199, 600, -1}) EXPECT_THROW(append_head(out, {status, &none}), Error) << status;
}

TEST(Secrets, EqualOnesAreEqual) {
  EXPECT_TRUE(equal_in_constant_time("", ""));
  EXPECT_TRUE(equal_in_constant_time("key", "key"));
  for (const char* other : {"", "k", "ke", "kex", "Key", "key ", " key", "keykey"}) EXPECT_FALSE(equal_in_constant_time("key", other)) << other;
  EXPECT_FALSE(equal_in_constant_time(std::string(1 << 20, 'a'), std::string(1 << 20, 'b')));
}

}  // namespace
}  // namespace frugal::serve
