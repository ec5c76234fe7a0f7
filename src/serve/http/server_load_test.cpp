// Many clients: S3, S4 and S5 of the torture list, and Python's own clients.
#include <fcntl.h>
#include <malloc.h>
#include <sys/resource.h>

#include <ctime>

#include "oracle.h"
#include "serve/http/test_client.h"

namespace frugal::serve {
namespace {

const std::string kGet = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

double processor_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

TEST(Load, S5WithoutDescriptorsTheServerWaitsAndRecovers) {
  StubServer stub;
  ASSERT_EQ(stub.get().status, 200);
  Client first(stub.port()), second(stub.port());
  ASSERT_TRUE(eventually([&] { return stub.server.counters().connections == 2; }));
  // Every descriptor but one, which the client below takes: none is left to accept it.
  rlimit old{};
  ::getrlimit(RLIMIT_NOFILE, &old);
  int highest = ::dup(0);
  ::close(highest);
  rlimit low = old;
  low.rlim_cur = static_cast<rlim_t>(highest + 1);
  std::vector<int> fillers;
  ::setrlimit(RLIMIT_NOFILE, &low);
  Client waiting(stub.port(), kGet);
  for (int fd; (fd = ::dup(0)) >= 0;) fillers.push_back(fd);
  EXPECT_TRUE(eventually([&] { return stub.server.counters().accept_pauses > 0; }));
  const double before = processor_seconds();
  std::this_thread::sleep_for(std::chrono::milliseconds(1000));
  EXPECT_LT(processor_seconds() - before, 0.2);
  EXPECT_LE(stub.server.counters().accept_pauses, 40u);
  first.send(kGet);  // those that are there are served
  EXPECT_EQ(first.answer().status, 200);
  ::setrlimit(RLIMIT_NOFILE, &old);
  for (const int fd : fillers) ::close(fd);
  EXPECT_EQ(waiting.answer().status, 200);
}

TEST(Load, S4ConnectionsOverTheLimitAreRefused) {
  HttpOptions options = StubServer::quick();
  options.limits.connections = 10;
  StubServer stub(options);
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 10; ++i) clients.push_back(std::make_unique<Client>(stub.port(), kGet));
  for (auto& client : clients) EXPECT_EQ(client->answer().status, 200);
  Client refused(stub.port());
  const ClientAnswer answer = refused.answer();
  EXPECT_EQ(answer.status, 503);
  EXPECT_EQ(Json::parse(answer.body)["error"]["type"], "unavailable_error");
  EXPECT_EQ(answer.header("Retry-After"), "1");
  EXPECT_EQ(stub.server.counters().refused, 1u);
  clients.pop_back();
  EXPECT_TRUE(eventually([&] { return stub.server.counters().connections == 9; }));
  EXPECT_EQ(stub.get().status, 200);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // their allocators do not say how much is in use
TEST(Load, S4IdleConnectionsHoldLittleMemory) {
  StubServer stub;
  const size_t count = 2000;
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = std::max<rlim_t>(files.rlim_cur, std::min<rlim_t>(files.rlim_max, 2 * count + 100));
  ::setrlimit(RLIMIT_NOFILE, &files);
  const auto memory = [] { return ::mallinfo2().uordblks + ::mallinfo2().hblkhd; };
  std::vector<std::unique_ptr<Client>> clients;
  for (size_t i = 0; i < count; ++i) clients.push_back(std::make_unique<Client>(stub.port()));
  for (auto& client : clients) {
    client->send(post(std::string(20'000, 'x')));
    ASSERT_EQ(client->answer().status, 200);
    std::string().swap(client->received());
  }
  EXPECT_EQ(stub.server.counters().connections, count);
  const size_t with = memory();
  stub.server.stop();
  const size_t per_connection = (with - std::min(with, memory())) / count;
  RecordProperty("bytes", static_cast<int>(per_connection));
  EXPECT_LE(per_connection, 4096u);
  EXPECT_GE(per_connection, 200u);
}
#endif

TEST(Load, S3SlowSendersDoNotDelayOthers) {
  HttpOptions options = StubServer::quick();
  options.timeouts.header = 2;
  StubServer stub(options);
  std::vector<std::unique_ptr<Client>> slow;
  for (int i = 0; i < 500; ++i) slow.push_back(std::make_unique<Client>(stub.port(), "GET / HTTP/1.1\r\nHost: lo"));
  for (int i = 0; i < 200; ++i) ASSERT_EQ(stub.get().status, 200);
  for (auto& client : slow) EXPECT_EQ(client->answer().status, 408);
}

TEST(Load, StreamsOfManyThreadsKeepTheirOrder) {
  for (const int io_threads : {1, 3}) {
    HttpOptions options = StubServer::quick();
    options.io_threads = io_threads;
    StubServer stub(options);
    std::vector<std::unique_ptr<Client>> clients;
    const int count = 60, tokens = 200;
    for (int i = 0; i < count; ++i)
      clients.push_back(std::make_unique<Client>(stub.port(), fmt::format("GET /held/{} HTTP/1.1\r\nHost: localhost\r\n\r\n", i)));
    std::vector<StubServer::Held> held;
    for (int i = 0; i < count; ++i) held.push_back(stub.take());
    std::vector<std::thread> engines;
    for (int engine = 0; engine < 4; ++engine) {
      engines.emplace_back([&, engine] {
        for (int i = engine; i < count; i += 4) held[static_cast<size_t>(i)].response->start(200, {});
        for (int token = 0; token < tokens; ++token) {
          for (int i = engine; i < count; i += 4) EXPECT_TRUE(held[static_cast<size_t>(i)].response->write(fmt::format("{} ", token)));
        }
        for (int i = engine; i < count; i += 4) held[static_cast<size_t>(i)].response->finish();
      });
    }
    for (std::thread& engine : engines) engine.join();
    std::string expected;
    for (int token = 0; token < tokens; ++token) expected += fmt::format("{} ", token);
    for (auto& client : clients) {
      const ClientAnswer answer = client->answer();
      EXPECT_TRUE(answer.complete);
      EXPECT_EQ(answer.body, expected);
    }
  }
}

// http.client and requests against this server, random requests of all kinds; the script compares what comes back.
TEST(Load, PythonsClientsAreServed) {
  StubServer stub;
  const Json done = Json::parse(testing::run_oracle("check_http_clients.py", fmt::format("{} {} 200", stub.port(), testing::test_seed())));
  EXPECT_EQ(done["requests"], 200);
  EXPECT_EQ(done["differences"], Json::array());
}

}  // namespace
}  // namespace frugal::serve
