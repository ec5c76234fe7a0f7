// Part L of the torture list, by its numbers, over real connections.
#include "serve/http/test_client.h"

namespace frugal::serve {
namespace {

using std::string_literals::operator""s;

const std::string kGet = "GET / HTTP/1.1\r\nHost: localhost\r\n";
const std::string kPost = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
const std::string kChunked = kPost + "Transfer-Encoding: chunked\r\n\r\n";

struct Case {
  std::string name, bytes;
  int status;
  bool closes = true;
};

std::string with_length(const std::string& value) { return kPost + "Content-Length:" + value + "\r\n\r\nhello"; }
std::string with_encoding(const std::string& value) { return kPost + "Transfer-Encoding:" + value + "\r\n\r\n5\r\nhello\r\n0\r\n\r\n"; }
std::string with_chunk(const std::string& line) { return kChunked + line + "hello\r\n0\r\n\r\n"; }
std::string repeated(const std::string& text, size_t times) {
  std::string all;
  for (size_t i = 0; i < times; ++i) all += text;
  return all;
}

void check(const std::vector<Case>& cases, HttpOptions options = StubServer::quick()) {
  StubServer stub(std::move(options));
  for (const Case& each : cases) {
    SCOPED_TRACE(each.name);
    Client client(stub.port());
    std::thread sender([&] { client.send(each.bytes); });  // the server may answer before it has read everything
    const ClientAnswer answer = client.answer();
    EXPECT_EQ(answer.status, each.status);
    if (each.status >= 400) {
      const Json error = Json::parse(answer.body, nullptr, false);
      EXPECT_TRUE(error.is_object() && error["error"]["message"].is_string() && error["error"]["type"].is_string() && error["error"].contains("param") &&
                  error["error"].contains("code"))
          << answer.body;
      EXPECT_EQ(answer.header("Content-Type"), "application/json");
    }
    EXPECT_EQ(answer.header("Connection"), each.closes ? "close" : "");
    EXPECT_TRUE(!each.closes || client.closed_by_server());
    ::shutdown(client.fd(), SHUT_RDWR);
    sender.join();
    EXPECT_EQ(stub.get().status, 200);
  }
}

TEST(Framing, L1ContentLengthIsOneNumber) {
  std::vector<Case> cases = {
      {"both", kPost + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
      {"both, other order", kPost + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400},
      {"two alike", kPost + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400},
      {"two different", kPost + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400},
      {"largest number", with_length(" 18446744073709551615"), 413},
      {"good", with_length(" 5"), 200, false},
      {"good without a space", with_length("5"), 200, false},
  };
  for (const char* bad : {" +5", " -1", " 0x5", " 5,5", " 5, 5", " 5 ", " 5\t", " 18446744073709551616", " 99999999999999999999999", "", " ", " 5a", " 5.0"}) {
    cases.push_back({bad, with_length(bad), 400});
  }
  check(cases);
}

TEST(Framing, L2TransferEncodingIsChunked) {
  std::vector<Case> cases = {
      {"HTTP/1.0", "POST / HTTP/1.0\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
      {"two", kPost + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
      {"Chunked", with_encoding(" Chunked"), 200, false},
      {"CHUNKED", with_encoding("CHUNKED"), 200, false},
  };
  for (const char* bad : {" xchunked", " chunked, gzip", " gzip, chunked", " chunked ", " chunked\t", "", " identity", " chunked;q=1", " \"chunked\""}) {
    cases.push_back({bad, with_encoding(bad), 400});
  }
  check(cases);
}

TEST(Framing, L3ChunksAreHexadecimalAndBounded) {
  std::vector<Case> cases = {
      {"without CRLF", kChunked + "5\r\nhello0\r\n\r\n", 400},
      {"longer than it says", kChunked + "4\r\nhello\r\n0\r\n\r\n", 400},
      {"bare LF after the size", kChunked + "5\nhello\r\n0\r\n\r\n", 400},
      {"bare LF after the data", kChunked + "5\r\nhello\n0\r\n\r\n", 400},
      {"bare CR", kChunked + "5\rhello\r\n0\r\n\r\n", 400},
      {"extension", kChunked + "5;a=\"b\"\r\nhello\r\n0\r\n\r\n", 200, false},
      {"extension of 1 MiB", kChunked + "5;" + std::string(1 << 20, 'x') + "\r\nhello\r\n0\r\n\r\n", 400},
      {"extensions of 200 bytes", kChunked + repeated("1;" + std::string(200, 'x') + "\r\na\r\n", 1000) + "0\r\n\r\n", 400},
      {"trailers of 1 MiB", kChunked + "0\r\n" + repeated("x: " + std::string(8000, 'x') + "\r\n", 130) + "\r\n", 431},
      {"101 trailers", kChunked + "0\r\n" + repeated("x: y\r\n", 101) + "\r\n", 431},
      {"trailer", kChunked + "5\r\nhello\r\n0\r\nChecksum: 1\r\n\r\n", 200, false},
      {"trailer Content-Length", kChunked + "0\r\nContent-Length: 5\r\n\r\n", 400},
      {"trailer Transfer-Encoding", kChunked + "0\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
      {"trailer Authorization", kChunked + "0\r\nAuthorization: Bearer x\r\n\r\n", 400},
      {"upper case digits", kChunked + "A\r\n0123456789\r\n0\r\n\r\n", 200, false},
  };
  for (const char* bad :
       {"-2\r\n", "+1\r\n", "0x1\r\n", "\r\n", "11111111111111111\r\n", "00000000000000005\r\n", "1_0\r\n", " 5\r\n", "5 \r\n", "g\r\n", ";a\r\n"}) {
    cases.push_back({bad, with_chunk(bad), 400});
  }
  check(cases);
}

TEST(Framing, L3ThreeMillionChunksOfOneByteAreRead) {
  StubServer stub;
  Client client(stub.port(), kChunked);
  const std::string many = repeated("1\r\nx\r\n", 30'000);
  for (int i = 0; i < 100; ++i) client.send(many);
  client.send("0\r\n\r\n");
  const ClientAnswer answer = client.answer();
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(Json::parse(answer.body)["body"].get<std::string>().size(), 3'000'000u);
}

TEST(Framing, L3WithoutALastChunkTheRequestTimesOut) {
  HttpOptions options = StubServer::quick();
  options.timeouts.body_idle = 1;
  StubServer stub(options);
  Client client(stub.port(), kChunked + "5\r\nhello\r\n");
  EXPECT_EQ(client.answer().status, 408);
  EXPECT_TRUE(client.closed_by_server());
  Client cut(stub.port(), kChunked + "5\r\nhello\r\n");
  cut.shut_writing();
  EXPECT_EQ(cut.answer().status, 400);
}

TEST(Framing, L4LinesAndFieldsAreStrict) {
  check({
      {"bare LF", "GET / HTTP/1.1\nHost: localhost\n\n", 400},
      {"bare LF after a header", "GET / HTTP/1.1\r\nHost: localhost\n\r\n", 400},
      {"bare CR in a value", kGet + "a: b\rc: d\r\n\r\n", 400},
      {"bare CR as line end", "GET / HTTP/1.1\rHost: localhost\r\r", 400},
      {"CR at the end of the head", kGet + "\rx", 400},
      {"NUL in a value", kGet + "a: b\0c\r\n\r\n"s, 400},
      {"NUL in a name", kGet + "a\0b: c\r\n\r\n"s, 400},
      {"control character", kGet + "a: \x01\r\n\r\n", 400},
      {"folded", kGet + "a: b\r\n c\r\n\r\n", 400},
      {"folded with a tab", kGet + "a: b\r\n\tc\r\n\r\n", 400},
      {"first header folded", "GET / HTTP/1.1\r\n Host: localhost\r\n\r\n", 400},
      {"space before the colon", kGet + "a : b\r\n\r\n", 400},
      {"empty name", kGet + ": b\r\n\r\n", 400},
      {"UTF-8 in a name", kGet + "\xc3\xa4: b\r\n\r\n", 400},
      {"no colon", kGet + "abc\r\n\r\n", 400},
      {"two lines before", "\r\n\r\n" + kGet + "\r\n", 400},
      {"one line before", "\r\n" + kGet + "\r\n", 200, false},
      {"UTF-8 in a value", kGet + "a: \xc3\xa4\r\n\r\n", 200, false},
      {"empty value", kGet + "a:\r\n\r\n", 200, false},
      {"spaces around a value", kGet + "a: \t b \t\r\n\r\n", 200, false},
  });
}

TEST(Framing, L5TheHostIsOneOfOurs) {
  const auto host = [](const std::string& value) { return "GET / HTTP/1.1\r\nHost: " + value + "\r\n\r\n"; };
  HttpOptions options = StubServer::quick();
  options.allowed_hosts = {"Models.example"};
  std::vector<Case> cases = {
      {"missing", "GET / HTTP/1.1\r\n\r\n", 400},
      {"missing in HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", 200},
      {"two alike", "GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400},
      {"two", "GET / HTTP/1.1\r\nHost: localhost\r\nHost: 127.0.0.1\r\n\r\n", 400},
      {"rebound in HTTP/1.0", "GET / HTTP/1.0\r\nHost: evil.example\r\n\r\n", 403},
      {"absolute, allowed", "GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 200, false},
      {"absolute, other", "GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400},
      {"absolute, not allowed", "GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403, false},
  };
  for (const char* good : {"localhost", "LOCALHOST:80", "127.0.0.1", "127.0.0.1:65535", "[::1]", "[::1]:8080", "models.example:1"}) {
    cases.push_back({good, host(good), 200, false});
  }
  for (const char* bad :
       {"", "a b", "a/b", "user@localhost", "localhost:", "localhost:x", "localhost:123456", "[::1", "[::g]", "[::1]x", "::1", "a,b", "\xc3\xa4"}) {
    cases.push_back({bad, host(bad), 400});
  }
  for (const char* other : {"evil.example", "localhost.evil.example", "localhost.", "127.0.0.2", "0.0.0.0", "[::2]", "2130706433"}) {
    cases.push_back({other, host(other), 403, false});
  }
  check(cases, options);
}

TEST(Framing, L6MethodsAndVersions) {
  check({
      {"NUL in the method", "G\0T / HTTP/1.1\r\nHost: localhost\r\n\r\n"s, 400},
      {"long method", std::string(10 << 10, 'A') + " / HTTP/1.1\r\nHost: localhost\r\n\r\n", 400},
      {"HTTP/0.9", "GET /\r\n\r\n", 400},
      {"HTTP/0.9 with its name", "GET / HTTP/0.9\r\nHost: localhost\r\n\r\n", 505},
      {"HTTP/1.2", "GET / HTTP/1.2\r\nHost: localhost\r\n\r\n", 505},
      {"HTTP/2.0", "GET / HTTP/2.0\r\nHost: localhost\r\n\r\n", 505},
      {"HTTP/1.1 x", "GET / HTTP/1.1 x\r\nHost: localhost\r\n\r\n", 400},
      {"http/1.1", "GET / http/1.1\r\nHost: localhost\r\n\r\n", 400},
      {"HTTP/1.10", "GET / HTTP/1.10\r\nHost: localhost\r\n\r\n", 400},
      {"HTTP/1.", "GET / HTTP/1.\r\nHost: localhost\r\n\r\n", 400},
      {"two spaces", "GET  / HTTP/1.1\r\nHost: localhost\r\n\r\n", 400},
      {"tab", "GET\t/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400},
      {"space first", " GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 400},
      {"preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
      {"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"s, 400},
      {"unknown method", "BREW / HTTP/1.1\r\nHost: localhost\r\n\r\n", 501},
      {"lower case", "get / HTTP/1.1\r\nHost: localhost\r\n\r\n", 501},
  });
}

TEST(Framing, L7LimitsHoldToTheByte) {
  const std::string fields = "Host: localhost\r\n";
  const auto line = [&](size_t bytes) { return "GET /" + std::string(bytes - 14, 'a') + " HTTP/1.1\r\n" + fields + "\r\n"; };
  const auto headers = [&](size_t bytes) { return "GET / HTTP/1.1\r\n" + fields + "a: " + std::string(bytes - fields.size() - 5, 'b') + "\r\n\r\n"; };
  const auto chunks = [&](size_t bytes) { return kChunked + fmt::format("{:x}\r\n", bytes) + std::string(bytes, 'x') + "\r\n0\r\n\r\n"; };
  check({
      {"request line of 8,192 bytes", line(8192), 200, false},
      {"request line of 8,193 bytes", line(8193), 414},
      {"request line of 1 MiB", line(1 << 20), 414},
      {"headers of 16,384 bytes", headers(16384), 200, false},
      {"headers of 16,385 bytes", headers(16385), 431},
      {"headers of 1 MiB", headers(1 << 20), 431},
      {"100 headers", kGet + repeated("a: b\r\n", 99) + "\r\n", 200, false},
      {"101 headers", kGet + repeated("a: b\r\n", 100) + "\r\n", 431},
      {"body of 8 MiB", post(std::string(8 << 20, 'x')), 200, false},
      {"body of 8 MiB and a byte", post(std::string((8 << 20) + 1, 'x')), 413},
      {"body of 8 MiB and a byte, not sent", kPost + "Content-Length: 8388609\r\n\r\n", 413},
      {"chunks of 8 MiB", chunks(8 << 20), 200, false},
      {"chunks of 8 MiB and a byte", chunks((8 << 20) + 1), 413},
      {"many chunks", kChunked + repeated("10000\r\n" + std::string(1 << 16, 'x') + "\r\n", 129), 413},
      {"chunk of 2^64 - 1 bytes", kChunked + "ffffffffffffffff\r\n", 413},
  });
}

TEST(Framing, L8ExpectationsAreMetOrRefused) {
  StubServer stub;
  {
    Client client(stub.port(), kPost + "Expect: 100-continue\r\nContent-Length: 8388609\r\n\r\n");
    const ClientAnswer answer = client.answer();
    EXPECT_EQ(answer.status, 413);
    EXPECT_EQ(answer.interim, 0);
  }
  {
    Client client(stub.port(), kPost + "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    EXPECT_TRUE(client.receive_until("HTTP/1.1 100 Continue\r\n\r\n"));
    client.send("hello");
    const ClientAnswer answer = client.answer();
    EXPECT_EQ(answer.status, 200);
    EXPECT_EQ(answer.interim, 1);
    EXPECT_EQ(Json::parse(answer.body)["body"], "hello");
  }
  Client other(stub.port(), kPost + "Expect: the best\r\nContent-Length: 5\r\n\r\n");
  EXPECT_EQ(other.answer().status, 417);
}

TEST(Framing, L9EncodedAndForeignBodiesAreRefused) {
  const auto typed = [](const std::string& header) { return "POST / HTTP/1.1\r\nHost: localhost\r\n" + header + "Content-Length: 2\r\n\r\n{}"; };
  check({
      {"gzip", kPost + "Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", 415},
      {"identity", kPost + "Content-Encoding: identity\r\nContent-Length: 2\r\n\r\n{}", 200, false},
      {"no type", typed(""), 415},
      {"text", typed("Content-Type: text/plain\r\n"), 415},
      {"form", typed("Content-Type: application/x-www-form-urlencoded\r\n"), 415},
      {"multipart", typed("Content-Type: multipart/form-data; boundary=x\r\n"), 415},
      {"JSON in a list", typed("Content-Type: text/plain, application/json\r\n"), 415},
      {"two types", typed("Content-Type: text/plain\r\nContent-Type: application/json\r\n"), 400},
      {"JSON", typed("Content-Type: Application/JSON;charset=utf-8\r\n"), 200, false},
  });
}

TEST(Framing, L10PipelinedRequestsAreAnsweredInOrder) {
  StubServer stub;
  std::string all;
  for (int i = 0; i < 100; ++i)
    all += i == 57 ? "GET / HTTP/1.1\r\nno colon\r\n\r\n" : i % 3 ? fmt::format("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", i) : post(std::to_string(i));
  Client client(stub.port(), all);
  for (int i = 0; i < 57; ++i) {
    const ClientAnswer answer = client.answer();
    ASSERT_EQ(answer.status, 200) << i;
    const Json body = Json::parse(answer.body);
    EXPECT_EQ(i % 3 ? body["path"] : body["body"], i % 3 ? fmt::format("/{}", i) : std::to_string(i));
  }
  EXPECT_EQ(client.answer().status, 400);
  EXPECT_TRUE(client.closed_by_server());
  EXPECT_EQ(client.received(), "");
}

TEST(Framing, L10APipelineLongerThanItsBufferIsRead) {
  StubServer stub;
  Client client(stub.port(), "GET /held HTTP/1.1\r\nHost: localhost\r\n\r\n");
  const StubServer::Held held = stub.take();
  std::thread sender([&] { client.send(repeated(kGet + "pad: " + std::string(4000, 'x') + "\r\n\r\n", 200)); });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  held.response->send(200, {}, "first");
  EXPECT_EQ(client.answer().body, "first");
  for (int i = 0; i < 200; ++i) ASSERT_EQ(client.answer().status, 200) << i;
  sender.join();
}

TEST(Framing, L11MethodsWithAndWithoutBodies) {
  check({
      {"GET with a body", kGet + "Content-Length: 5\r\n\r\nhello", 200, false},
      {"POST without a length", kPost + "\r\n", 411},
      {"PUT without a length", "PUT / HTTP/1.1\r\nHost: localhost\r\n\r\n", 411},
      {"POST of nothing", "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", 200, false},
      {"DELETE", "DELETE / HTTP/1.1\r\nHost: localhost\r\n\r\n", 200, false},
      {"TRACE", "TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, false},
      {"CONNECT", "CONNECT localhost:80 HTTP/1.1\r\nHost: localhost:80\r\n\r\n", 405, false},
      {"Upgrade", kGet + "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", 200, false},
  });
  StubServer stub;
  Client client(stub.port(), "HEAD /x HTTP/1.1\r\nHost: localhost\r\n\r\n");
  const ClientAnswer head = client.answer(true);
  EXPECT_EQ(head.status, 200);
  EXPECT_GT(std::stoi(head.header("Content-Length")), 10);
  client.send("OPTIONS / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\nAccess-Control-Request-Method: POST\r\n\r\n");
  const ClientAnswer options = client.answer();
  EXPECT_EQ(options.status, 204);  // and nothing of the HEAD's body came before
  EXPECT_EQ(options.head.find("Access-Control"), std::string::npos);
  EXPECT_NE(options.header("Allow").find("POST"), std::string::npos);
  client.send("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_EQ(client.answer().status, 204);
}

TEST(Framing, L12TargetsHaveOneForm) {
  StubServer stub;
  const std::vector<std::pair<std::string, std::string>> good = {{"http://localhost/a?b", "/a"},          {"//", "/"},
                                                                 {"//evil.example/x", "/evil.example/x"}, {"/v1/../admin", "/admin"},
                                                                 {"/v1/%2e%2E/admin", "/admin"},          {"/a%2Fb", "/a/b"}};
  for (const auto& [target, path] : good) {
    Client client(stub.port(), "GET " + target + " HTTP/1.1\r\nHost: localhost\r\n\r\n");
    const ClientAnswer answer = client.answer();
    ASSERT_EQ(answer.status, 200) << target;
    EXPECT_EQ(Json::parse(answer.body)["path"], path) << target;
  }
  for (const std::string target :
       {"*", "/%00", "/%zz", "/%c0%ae", "/%", "/a%2", "x", "https://localhost/", "http://", "/\xc3\xa4", "/a#b", "/a\\b", "http://a@localhost/"}) {
    Client client(stub.port(), "GET " + target + " HTTP/1.1\r\nHost: localhost\r\n\r\n");
    EXPECT_EQ(client.answer().status, 400) << target;
  }
}

TEST(Framing, L13SlowSendersAreClosed) {
  HttpOptions options = StubServer::quick();
  options.timeouts.header = 0.5;
  options.timeouts.body_idle = 0.5;
  StubServer stub(options);
  const auto slowly = [&](const std::string& all) {
    Client client(stub.port());
    for (size_t i = 0; i < all.size() && client.send(all.substr(i, 1)); ++i) {
      if (client.receive(20)) break;
    }
    return client.answer().status;
  };
  EXPECT_EQ(slowly("GET /" + std::string(1000, 'a')), 408);
  EXPECT_EQ(slowly(kGet + std::string(1000, 'a')), 408);
  const std::string body(1000, 'x');
  Client client(stub.port(), kPost + "Content-Length: 1000\r\n\r\n");
  for (size_t i = 0; i < body.size() && client.send("x") && !client.receive(20); ++i) {}
  EXPECT_EQ(client.answer().status, 408);
  Client silent(stub.port());
  EXPECT_TRUE(silent.closed_by_server());
  EXPECT_EQ(silent.received(), "");
  EXPECT_EQ(stub.server.counters().timed_out, 4u);
}

TEST(Framing, L13APausedBodyAndAnIdleConnectionAreClosed) {
  HttpOptions options = StubServer::quick();
  options.timeouts.body_idle = options.timeouts.keep_alive = 0.3;
  StubServer stub(options);
  Client paused(stub.port(), kPost + "Content-Length: 5\r\n\r\nhe");
  EXPECT_EQ(paused.answer().status, 408);
  Client idle(stub.port(), kGet + "\r\n");
  EXPECT_EQ(idle.answer().status, 200);
  EXPECT_TRUE(idle.closed_by_server());
  EXPECT_EQ(idle.received(), "");
}

TEST(Framing, L15ManyRequestsOnOneConnection) {
  StubServer stub;
  Client client(stub.port());
  for (int i = 0; i < 5000; ++i) {
    client.send(kGet + "\r\n");
    ASSERT_EQ(client.answer().status, 200) << i;
  }
  EXPECT_EQ(stub.server.counters().accepted, 1u);
}

TEST(Framing, L16ARequestSplitAnywhereGetsTheSameAnswer) {
  StubServer stub;
  const std::string whole =
      "POST /a%20b/../c?d=e HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nX:  y \r\n\r\n"
      "5;x=y\r\nhello\r\n4\r\n you\r\n0\r\nTrailer: t\r\n\r\n";
  const auto bodies = [&](const std::vector<std::string>& parts) {
    Client client(stub.port());
    const int now = 1;
    ::setsockopt(client.fd(), IPPROTO_TCP, 1 /* TCP_NODELAY */, &now, sizeof(now));
    for (const std::string& part : parts) {
      client.send(part);
      std::this_thread::sleep_for(std::chrono::microseconds(300));
    }
    return client.answer().body;
  };
  const std::string expected = bodies({whole});
  EXPECT_EQ(Json::parse(expected)["body"], "hello you");
  for (size_t cut = 1; cut < whole.size(); ++cut) ASSERT_EQ(bodies({whole.substr(0, cut), whole.substr(cut)}), expected) << cut;
  std::vector<std::string> bytes;
  for (const char c : whole) bytes.emplace_back(1, c);
  EXPECT_EQ(bodies(bytes), expected);
}

TEST(Framing, TooManyBodiesAtATimeAreRefused) {
  HttpOptions options = StubServer::quick();
  options.limits.bodies = 1 << 20;
  StubServer stub(options);
  Client first(stub.port(), kPost + "Content-Length: 800000\r\n\r\n" + std::string(700'000, 'x'));
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  Client second(stub.port(), kPost + "Content-Length: 800000\r\n\r\n");
  const ClientAnswer refused = second.answer();
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.header("Retry-After"), "1");
  first.send(std::string(100'000, 'x'));
  EXPECT_EQ(first.answer().status, 200);
  Client third(stub.port(), kPost + "Content-Length: 800000\r\n\r\n" + std::string(800'000, 'x'));
  EXPECT_EQ(third.answer().status, 200);
}

}  // namespace
}  // namespace frugal::serve
