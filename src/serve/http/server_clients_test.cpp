// Answers and the clients that take them, leave them or do not read them: S1, S2, S12, S17 and part P of the torture list.
#include <netinet/tcp.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <atomic>
#include <ctime>
#include <random>

#include "hand_clock.h"
#include "oracle.h"
#include "serve/http/test_client.h"

namespace frugal::serve {
namespace {

const std::string kHeld = "GET /held HTTP/1.1\r\nHost: localhost\r\n\r\n";

TEST(Streams, ChunksComeAsTheyAreWritten) {
  StubServer stub;
  Client client(stub.port(), kHeld + kHeld);
  const StubServer::Held first = stub.take();
  EXPECT_FALSE(first.response->write("too early"));
  first.response->start(200, {{"Content-Type", "text/event-stream"}});
  EXPECT_TRUE(first.response->write("data: 1\n\n"));
  EXPECT_TRUE(client.receive_until("data: 1\n\n"));
  EXPECT_TRUE(first.response->write(""));
  EXPECT_TRUE(first.response->write("data: 2\n\n"));
  first.response->finish();
  EXPECT_FALSE(first.response->write("late"));
  first.response->send(200, {}, "late");
  const ClientAnswer answer = client.answer();
  EXPECT_TRUE(answer.complete);
  EXPECT_EQ(answer.body, "data: 1\n\ndata: 2\n\n");
  EXPECT_EQ(answer.header("Content-Type"), "text/event-stream");
  const StubServer::Held second = stub.take();  // of the same connection, only now
  second.response->send(201, {}, "second");
  const ClientAnswer next = client.answer();
  EXPECT_EQ(next.status, 201);
  EXPECT_EQ(next.body, "second");
}

TEST(Streams, ForHttp10TheyEndWithTheConnection) {
  StubServer stub;
  Client client(stub.port(), "GET /held HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  const StubServer::Held held = stub.take();
  held.response->start(200, {});
  held.response->write("all ");
  held.response->write("of it");
  held.response->finish();
  const ClientAnswer answer = client.answer();
  EXPECT_EQ(answer.header("Transfer-Encoding"), "");
  EXPECT_EQ(answer.header("Connection"), "close");
  EXPECT_TRUE(answer.complete);
  EXPECT_EQ(answer.body, "all of it");
}

TEST(Streams, ToHeadHaveNoBody) {
  StubServer stub;
  Client client(stub.port(), "HEAD /held HTTP/1.1\r\nHost: localhost\r\n\r\n" + kHeld);
  const StubServer::Held held = stub.take();
  held.response->start(200, {});
  EXPECT_TRUE(held.response->write("nothing of it"));
  held.response->finish();
  EXPECT_EQ(client.answer(true).status, 200);
  stub.take().response->send(200, {}, "next");
  EXPECT_EQ(client.answer().body, "next");
}

TEST(KeepAlive, FollowsVersionAndHeader) {
  StubServer stub;
  const auto connection = [&](const std::string& version, const std::string& header) {
    Client client(stub.port(), "GET / HTTP/" + version + "\r\nHost: localhost\r\n" + header + "\r\n");
    const ClientAnswer answer = client.answer();
    EXPECT_EQ(answer.status, 200);
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    EXPECT_EQ(client.answer().status, answer.header("Connection") == "close" ? 0 : 200);
    return answer.header("Connection");
  };
  EXPECT_EQ(connection("1.1", ""), "");
  EXPECT_EQ(connection("1.1", "Connection: Close\r\n"), "close");
  EXPECT_EQ(connection("1.1", "Connection: te, close\r\n"), "close");
  EXPECT_EQ(connection("1.0", ""), "close");
  EXPECT_EQ(connection("1.0", "Connection: Keep-Alive\r\n"), "keep-alive");
}

TEST(Handlers, WhatIsDroppedAnswersWith500) {
  StubServer stub;
  Client client(stub.port(), kHeld);
  stub.take();
  EXPECT_EQ(client.answer().status, 500);
  client.send(kHeld);
  {
    const StubServer::Held held = stub.take();
    held.response->start(200, {});
    held.response->write("half");
  }
  const ClientAnswer cut = client.answer();
  EXPECT_EQ(cut.status, 200);
  EXPECT_FALSE(cut.complete);
  HttpServer failing(StubServer::quick(), [](HttpRequest&&, std::shared_ptr<HttpResponse>) { fail(ErrorKind::internal, "secret at 0x1234"); });
  Client other(failing.port(), kHeld);
  const ClientAnswer answer = other.answer();
  EXPECT_EQ(answer.status, 500);
  EXPECT_EQ(answer.body.find("secret"), std::string::npos);
}

TEST(Handlers, AnAnswerThatWouldBreakTheFramingLeavesNothingBehind) {
  StubServer stub;
  Client client(stub.port(), kHeld + kHeld);
  {
    const StubServer::Held held = stub.take();
    EXPECT_THROW(held.response->send(200, {{"A", "b\r\nSet-Cookie: c"}}, "x"), Error);
    EXPECT_THROW(held.response->start(999, {}), Error);
  }
  EXPECT_EQ(client.answer().status, 500);
  stub.take().response->send(200, {}, "next");
  EXPECT_EQ(client.answer().body, "next");
}

TEST(Handlers, AnswersOutliveTheServer) {
  std::shared_ptr<HttpResponse> waiting, streaming;
  std::atomic<int> gone = 0;
  {
    StubServer stub;
    Client first(stub.port(), kHeld), second(stub.port(), kHeld);
    waiting = stub.take().response;
    streaming = stub.take().response;
    streaming->start(200, {});
    waiting->on_gone([&] { ++gone; });
    streaming->on_gone([&] { ++gone; });
  }
  EXPECT_EQ(gone, 2);
  EXPECT_FALSE(streaming->write("x"));
  waiting->send(200, {}, "x");
  streaming->finish();
  waiting->on_gone([&] { ++gone; });
  EXPECT_EQ(gone, 3);
}

// S1: a client that leaves, at a stage and in a way; then the response says so, and nothing is left.
enum class Way { reset, close };
enum class Stage { head, body, computing, streaming };

void expect_gone(StubServer& stub, Stage stage, Way way) {
  Client client(stub.port());
  StubServer::Held held;
  std::atomic<int> called = 0;
  if (stage == Stage::head) client.send("GET /held HTTP");
  if (stage == Stage::body) client.send("POST /held HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\nhe");
  if (stage >= Stage::computing) {
    client.send(kHeld);
    held = stub.take();
    held.response->on_gone([&] { ++called; });
  }
  if (stage == Stage::streaming) {
    held.response->start(200, {});
    held.response->write("data: x\n\n");
    ASSERT_TRUE(client.receive_until("data: x\n\n"));
  }
  if (way == Way::reset) client.reset();
  if (way == Way::close) client.close();
  if (!held.response) return;
  EXPECT_TRUE(eventually([&] { return (stage == Stage::computing || !held.response->write("data: y\n\n")) && called == 1; }));
  EXPECT_TRUE(held.response->gone());
}

TEST(Clients, S1ThoseThatLeaveAreNoticedAtEveryStage) {
  StubServer stub;
  for (const Stage stage : {Stage::head, Stage::body, Stage::computing, Stage::streaming}) {
    for (const Way way : {Way::reset, Way::close}) {
      SCOPED_TRACE(fmt::format("stage {}, way {}", static_cast<int>(stage), static_cast<int>(way)));
      expect_gone(stub, stage, way);
      EXPECT_TRUE(eventually([&] { return stub.server.counters().connections == 0; }));
    }
  }
  EXPECT_EQ(stub.server.counters().left, 4u);
}

TEST(Clients, L14AHalfClosedClientIsStillAnswered) {
  HttpOptions options = StubServer::quick();
  options.timeouts.probe = 0.05;
  StubServer stub(options);
  Client client(stub.port(), kHeld);
  const StubServer::Held held = stub.take();
  client.shut_writing();
  ASSERT_TRUE(client.receive_until("100 Continue"));
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT_FALSE(held.response->gone());
  held.response->send(200, {}, "still");
  const ClientAnswer answer = client.answer();
  EXPECT_EQ(answer.body, "still");
  EXPECT_GE(answer.interim, 3);
  EXPECT_TRUE(client.closed_by_server());

  Client streaming(stub.port(), kHeld);
  const StubServer::Held stream = stub.take();
  stream.response->start(200, {});
  streaming.shut_writing();
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_TRUE(stream.response->write("token"));
  stream.response->finish();
  EXPECT_EQ(streaming.answer().body, "token");

  Client old(stub.port(), "GET /held HTTP/1.0\r\n\r\n");
  const StubServer::Held oldest = stub.take();
  old.shut_writing();
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  oldest.response->send(200, {}, "old");
  const ClientAnswer to_old = old.answer();
  EXPECT_EQ(to_old.body, "old");
  EXPECT_EQ(to_old.interim, 0);
}

TEST(Clients, AHalfClosedClientThatLeavesLaterIsNoticed) {
  HttpOptions options = StubServer::quick();
  options.timeouts.probe = 0.05;
  StubServer stub(options);
  Client client(stub.port(), kHeld);
  const StubServer::Held held = stub.take();
  client.shut_writing();
  ASSERT_TRUE(client.receive_until("100 Continue"));
  client.close();
  EXPECT_TRUE(eventually([&] { return held.response->gone(); }));
}

TEST(Clients, L14AResetInTheBodyIsNoticed) {
  StubServer stub;
  Client client(stub.port(), "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\nhe");
  EXPECT_TRUE(eventually([&] { return stub.server.counters().connections == 1; }));
  client.reset();
  EXPECT_TRUE(eventually([&] { return stub.server.counters().connections == 0; }));
}

TEST(Clients, UrgentDataNeitherCountsAsLeavingNorSpins) {
  HttpOptions options = StubServer::quick();
  options.timeouts.probe = 0.05;
  StubServer stub(options);
  Client client(stub.port(), kHeld);
  const StubServer::Held held = stub.take();
  // More than is read ahead, so that the urgent byte stays unread and would wake the server for ever.
  client.send("GET / HTTP/1.1\r\nHost: localhost\r\nA: " + std::string(40'000, 'x'));
  ::send(client.fd(), "!", 1, MSG_OOB);
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  const std::clock_t before = std::clock();
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  EXPECT_LT(std::clock() - before, CLOCKS_PER_SEC / 4);
  EXPECT_FALSE(held.response->gone());
  client.reset();
  EXPECT_TRUE(eventually([&] { return held.response->gone(); }));
}

TEST(Clients, S1ThousandsThatLeaveAtRandomLeaveNothing) {
  const int count = 3000;
  std::mt19937 rng(testing::test_seed());
  std::atomic<int> begun = 0, ended = 0;
  HttpServer server(StubServer::quick(), [&](HttpRequest&&, std::shared_ptr<HttpResponse> response) {
    ++begun;
    std::thread([&, response = std::move(response), draw = begun * 7919 % 5] {
      if (draw == 0) {
        response->send(200, {}, std::string(100'000, 'x'));
      } else {
        response->start(200, {});
        for (int i = 0; i < 5 * draw && response->write("data: token\n\n"); ++i) std::this_thread::sleep_for(std::chrono::microseconds(200));
        if (draw != 3) response->finish();
      }
      ++ended;
    }).detach();
  });
  const std::string request = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\nhello";
  for (int i = 0; i < count; ++i) {
    Client client(server.port());
    const size_t cut = rng() % 3 ? request.size() : rng() % request.size();
    client.send(request.substr(0, cut));
    if (rng() % 2) client.receive(static_cast<int>(rng() % 3));
    if (rng() % 3 == 0) client.shut_writing();
    if (rng() % 2) {
      client.reset();
    } else {
      client.close();
    }
  }
  EXPECT_TRUE(eventually([&] { return server.counters().connections == 0 && begun == ended; }));
  Client client(server.port(), request);
  EXPECT_EQ(client.answer().status, 200);
  server.stop();
  EXPECT_TRUE(eventually([&] { return begun == ended; }));
}

TEST(Clients, S2ASlowReaderIsPausedThenDropped) {
  HttpOptions options = StubServer::quick();
  options.timeouts.slow_reader = 2;
  StubServer stub(options);
  Client client(stub.port(), 1024);
  client.send(kHeld);
  const StubServer::Held held = stub.take();
  std::atomic<int> gone = 0, room = 0;
  held.response->on_gone([&] { ++gone; });
  held.response->on_room([&] { ++room; });
  EXPECT_EQ(room, 1);  // at once
  held.response->start(200, {});
  const std::string token(1000, 't');
  while (held.response->write(token)) EXPECT_LE(held.response->waiting_bytes(), options.limits.output);
  EXPECT_FALSE(held.response->gone());
  EXPECT_GT(held.response->waiting_bytes(), options.limits.output / 2);
  held.response->on_room([&] { ++room; });
  EXPECT_EQ(stub.get().status, 200);  // others are served
  EXPECT_TRUE(eventually([&] { return gone == 1; }));
  EXPECT_EQ(room, 1);
  EXPECT_EQ(held.response->waiting_bytes(), 0u);
  EXPECT_EQ(stub.server.counters().dropped, 1u);
}

TEST(Clients, S2AWholeAnswerThatNobodyReadsIsDropped) {
  HttpOptions options = StubServer::quick();
  options.timeouts.slow_reader = 0.5;
  StubServer stub(options);
  Client client(stub.port(), 1024);
  client.send(kHeld + kHeld);
  stub.take().response->send(200, {}, std::string(8 << 20, 'x'));
  EXPECT_TRUE(eventually([&] { return stub.server.counters().connections == 0; }));
  EXPECT_EQ(stub.server.counters().dropped, 1u);
}

TEST(Clients, S2ASlowReaderThatKeepsTheRateIsKept) {
  HttpOptions options = StubServer::quick();
  options.timeouts.slow_reader = 0.5;
  StubServer stub(options);
  Client client(stub.port(), 4096);
  client.send(kHeld);
  stub.take().response->send(200, {}, std::string(4 << 20, 'x'));
  size_t read = 0;
  char buffer[65536];
  for (int i = 0; i < 40; ++i) {  // two seconds
    const ssize_t count = ::recv(client.fd(), buffer, sizeof(buffer), 0);
    ASSERT_GT(count, 0) << i;
    read += static_cast<size_t>(count);
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  while (client.receive() && read + client.received().size() < 4 << 20) {}
  EXPECT_GE(read + client.received().size(), size_t{4} << 20);
  EXPECT_EQ(stub.server.counters().dropped, 0u);
}

TEST(Clients, S2AReaderThatGoesOnGetsItAll) {
  StubServer stub;
  Client client(stub.port(), 4096);
  client.send(kHeld);
  const StubServer::Held held = stub.take();
  held.response->start(200, {});
  const int total = 3000;
  std::mutex mutex;
  std::condition_variable roomy;
  bool room = false;
  std::thread writer([&] {
    for (int i = 0; i < total;) {
      if (held.response->write(fmt::format("{:04}", i) + std::string(996, '.'))) {
        ++i;
        continue;
      }
      ASSERT_FALSE(held.response->gone());
      held.response->on_room([&] {
        const std::lock_guard lock(mutex);
        room = true;
        roomy.notify_one();
      });
      std::unique_lock lock(mutex);
      ASSERT_TRUE(roomy.wait_for(lock, std::chrono::seconds(10), [&] { return room; }));
      room = false;
    }
    held.response->finish();
  });
  const ClientAnswer answer = client.answer();
  writer.join();
  ASSERT_EQ(answer.body.size(), total * 1000u);
  for (int i = 0; i < total; ++i) ASSERT_EQ(answer.body.substr(static_cast<size_t>(i) * 1000, 4), fmt::format("{:04}", i));
}

TEST(Clients, S17OptionsOfTheListeningSocketReachTheConnections) {
  StubServer stub;
  Client client(stub.port(), kHeld);
  const StubServer::Held held = stub.take();
  sockaddr_in local{};
  socklen_t size = sizeof(local);
  ::getsockname(client.fd(), reinterpret_cast<sockaddr*>(&local), &size);
  int found = 0;
  for (int fd = 3; fd < 1024; ++fd) {
    sockaddr_in peer{};
    size = sizeof(peer);
    if (::getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size) != 0 || peer.sin_family != AF_INET || peer.sin_port != local.sin_port) continue;
    ++found;
    const auto option = [&](int level, int name) {
      int value = 0;
      socklen_t bytes = sizeof(value);
      ::getsockopt(fd, level, name, &value, &bytes);
      return value;
    };
    EXPECT_EQ(option(IPPROTO_TCP, TCP_NODELAY), 1);
    EXPECT_EQ(option(SOL_SOCKET, SO_KEEPALIVE), 1);
    EXPECT_EQ(option(IPPROTO_TCP, TCP_USER_TIMEOUT), 45'000);
    EXPECT_LE(option(IPPROTO_TCP, TCP_KEEPIDLE) + 3 * option(IPPROTO_TCP, TCP_KEEPINTVL), 60);
  }
  EXPECT_EQ(found, 1);
  held.response->send(200, {}, "");
}

TEST(Keys, PARequestWithoutOneIsRefusedBeforeItsBody) {
  HttpOptions options = StubServer::quick();
  options.authorize = [](const HttpRequest& request) -> std::optional<HttpAnswer> {
    if (request.path == "/health") return std::nullopt;
    const std::string* key = request.header("authorization");
    if (key && equal_in_constant_time(*key, "Bearer right")) return std::nullopt;
    return error_answer(401, "a key is needed");
  };
  StubServer stub(options);
  const auto status = [&](const std::string& header, const std::string& line = "GET /held") {
    Client client(stub.port(), line + " HTTP/1.1\r\nHost: localhost\r\n" + header + "\r\n");
    return client.answer(line.starts_with("HEAD")).status;
  };
  for (const char* header : {"", "Authorization: Bearer wrong\r\n", "Authorization: Bearer righ\r\n", "Authorization: Bearer right2\r\n",
                             "Authorization: bearer right\r\n", "Authorization: Bearer  right\r\n", "X-Api-Key: right\r\n"}) {
    EXPECT_EQ(status(header), 401) << header;
  }
  EXPECT_EQ(status("Authorization: Bearer right\r\nAuthorization: Bearer right\r\n"), 400);
  EXPECT_EQ(status("Authorization: " + std::string(1 << 20, 'x') + "\r\n"), 431);
  EXPECT_EQ(status("", "GET /held?key=right"), 401);
  for (const char* line : {"OPTIONS /held", "TRACE /held", "BREW /held", "GET /held/", "GET /health/../held", "HEAD /health/%2e%2e/held", "GET //held"}) {
    EXPECT_EQ(status("", line), 401) << line;
  }
  EXPECT_EQ(status("", "GET /held/../health"), 200);
  Client client(stub.port(),
                "POST /held HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: 8000000\r\n\r\n");
  const ClientAnswer answer = client.answer();
  EXPECT_EQ(answer.status, 401);
  EXPECT_EQ(answer.interim, 0);
  EXPECT_TRUE(client.closed_by_server());
}

TEST(Keys, P4ForeignOriginsGetNoHeadersOfCors) {
  StubServer stub;
  Client client(stub.port(), "GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\r\n");
  EXPECT_EQ(client.answer().head.find("Access-Control"), std::string::npos);
}

TEST(Shutdown, S12ADrainLetsAnswersEnd) {
  StubServer stub;
  Client idle(stub.port(), "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"), streaming(stub.port(), kHeld),
      half(stub.port(), "POST / HTTP/1.1\r\nHost: localhost\r\n");
  EXPECT_EQ(idle.answer().status, 200);
  const StubServer::Held held = stub.take();
  held.response->start(200, {});
  std::atomic<bool> ended = false;
  std::thread drain([&] {
    EXPECT_TRUE(stub.server.drain(10));
    ended = true;
  });
  EXPECT_TRUE(idle.closed_by_server());
  half.send("Content-Length: 2\r\nContent-Type: application/json\r\n\r\n{}");
  const ClientAnswer refused = half.answer();
  EXPECT_EQ(refused.status, 503);
  EXPECT_NE(refused.header("Retry-After"), "");
  EXPECT_FALSE(Client(stub.port()).connected());
  EXPECT_FALSE(ended);
  EXPECT_TRUE(held.response->write("last words"));
  held.response->finish();
  const ClientAnswer answer = streaming.answer();
  EXPECT_TRUE(answer.complete);
  EXPECT_EQ(answer.body, "last words");
  half.close();
  streaming.close();
  drain.join();
}

TEST(Shutdown, S12ADrainEndsInTime) {
  StubServer stub;
  Client client(stub.port(), kHeld);
  const StubServer::Held held = stub.take();
  std::atomic<int> gone = 0;
  held.response->on_gone([&] { ++gone; });
  EXPECT_FALSE(stub.server.drain(0.1));
  EXPECT_EQ(gone, 1);
  EXPECT_TRUE(client.closed_by_server());
  stub.server.stop();
}

TEST(Clocks, S16OnlyTheSteadyOneEndsWaiting) {
  HandClock clock;
  HttpOptions options = StubServer::quick();
  options.clock = &clock;
  StubServer stub(options);
  Client used(stub.port(), "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"), half(stub.port(), "GET / HT");
  EXPECT_EQ(used.answer().header("Date"), "Sun, 06 Nov 1994 08:49:37 GMT");
  for (const int64_t jump : {-86'400, -3'600, 86'400}) {
    clock.set_wall(784111777 + jump);
    std::this_thread::sleep_for(std::chrono::milliseconds(150));
  }
  EXPECT_TRUE(eventually([&] { return stub.server.counters().connections == 2; }));
  clock.advance(9.9);
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_EQ(stub.server.counters().connections, 2u);
  clock.advance(0.2);
  EXPECT_EQ(half.answer().status, 408);
  half.close();
  EXPECT_TRUE(eventually([&] { return stub.server.counters().connections == 1; }));
  clock.advance(options.timeouts.keep_alive);
  EXPECT_TRUE(used.closed_by_server());
}

TEST(Listening, UnixSocketsAreTheirOwners) {
  const testing::TemporaryFolder folder;
  HttpOptions options = StubServer::quick();
  options.host = folder / "http.sock";
  for (int round = 0; round < 2; ++round) {
    StubServer stub(options);
    struct ::stat info {};
    ASSERT_EQ(::stat(options.host.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0600u);
    EXPECT_THROW(StubServer second(options), Error);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    options.host.copy(address.sun_path, options.host.size());
    const auto connect = [&](const std::string& request) {
      const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
      EXPECT_EQ(::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
      EXPECT_EQ(::send(fd, request.data(), request.size(), 0), static_cast<ssize_t>(request.size()));
      return fd;
    };
    const int fd = connect("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    char buffer[4096];
    EXPECT_TRUE(std::string(buffer, static_cast<size_t>(std::max<ssize_t>(0, ::recv(fd, buffer, sizeof(buffer), 0)))).starts_with("HTTP/1.1 200 OK"));
    ::close(fd);
    const int leaving = connect(kHeld);
    const StubServer::Held held = stub.take();
    EXPECT_EQ(held.request.remote, "unix");
    ::close(leaving);
    EXPECT_TRUE(eventually([&] { return held.response->gone(); }));
  }
  EXPECT_FALSE(std::filesystem::exists(options.host));
  folder.write("file.sock", "mine");
  options.host = folder / "file.sock";
  EXPECT_THROW(StubServer stub(options), Error);
  EXPECT_TRUE(std::filesystem::exists(options.host));
}

TEST(Listening, Ipv6NamesAndTakenPorts) {
  for (const char* host : {"::1", "[::1]", "::"}) {
    HttpOptions options = StubServer::quick();
    options.host = host;
    StubServer stub(options);
    const int fd = ::socket(AF_INET6, SOCK_STREAM, 0);
    sockaddr_in6 address{};
    address.sin6_family = AF_INET6;
    address.sin6_addr = in6addr_loopback;
    address.sin6_port = htons(static_cast<uint16_t>(stub.port()));
    EXPECT_EQ(::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0) << host;
    const std::string request = "GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n";
    EXPECT_GT(::send(fd, request.data(), request.size(), MSG_NOSIGNAL), 0);
    char buffer[12] = "";
    EXPECT_EQ(::recv(fd, buffer, sizeof(buffer), MSG_WAITALL), 12);
    EXPECT_EQ(std::string(buffer, 12), "HTTP/1.1 200");
    ::close(fd);
    options.port = stub.port();
    EXPECT_THROW(StubServer second(options), Error) << host;
  }
  HttpOptions options;
  options.host = "localhost";
  EXPECT_EQ(StubServer(options).get().status, 200);
  options.host = "no such name.invalid";
  EXPECT_THROW(StubServer stub(options), Error);
  options.host = "127.0.0.1";
  options.port = 70'000;
  EXPECT_THROW(StubServer stub(options), Error);
}

}  // namespace
}  // namespace frugal::serve
