// A stream whose client takes nothing for a while.
#include "serve/event_stream.h"

#include <gtest/gtest.h>

namespace frugal::serve {
namespace {

// Takes what fits into `room` and calls back at once when there is some, as the HTTP layer does.
class FakeResponse : public HttpResponse {
 public:
  using HttpResponse::send;
  void send(int, const HttpHeaders&, std::string body) override { answer = body; }
  void start(int, const HttpHeaders&) override {}
  bool write(std::string_view data) override {
    if (left || refusals-- > 0) return false;
    taken.append(data);
    return true;
  }
  void finish() override { finished = true; }
  size_t waiting_bytes() const override { return 0; }
  bool gone() const override { return left; }
  void on_gone(std::function<void()>) override {}
  void on_room(std::function<void()> callback) override {
    if (calls_at_once)
      callback();
    else
      waiting = std::move(callback);
  }
  std::string taken, answer;
  int refusals = 0;
  bool left = false, finished = false, calls_at_once = false;
  std::function<void()> waiting;
};

TEST(EventStream, RoomThatIsThereAtOnceIsUsedAtOnce) {
  const auto response = std::make_shared<FakeResponse>();
  response->calls_at_once = true;
  response->refusals = 3;
  const auto stream = std::make_shared<EventStream>(response, "text/event-stream");
  EXPECT_TRUE(stream->send("a"));
  EXPECT_TRUE(stream->send("b"));
  EXPECT_EQ(response->taken, "ab");
}

TEST(EventStream, WhatWaitsIsSentAfterItsOwnerHasGone) {
  const auto response = std::make_shared<FakeResponse>();
  response->refusals = 3;
  {
    const auto stream = std::make_shared<EventStream>(response, "text/event-stream");
    EXPECT_TRUE(stream->send("a"));
    EXPECT_TRUE(stream->send("b"));
    stream->finish();
  }
  EXPECT_FALSE(response->finished);
  response->refusals = 0;
  const auto callback = std::exchange(response->waiting, nullptr);
  ASSERT_TRUE(callback);
  callback();
  EXPECT_EQ(response->taken, "ab");
  EXPECT_TRUE(response->finished);
}

TEST(EventStream, PingsWhenNothingWasSentSinceTheLastTime) {
  const auto response = std::make_shared<FakeResponse>();
  const auto stream = std::make_shared<EventStream>(response, "text/event-stream; charset=utf-8");
  stream->ping();
  EXPECT_EQ(response->taken, "");
  stream->ping();
  EXPECT_EQ(response->taken, ": ping\n\n");
  stream->send("a");
  stream->ping();
  EXPECT_EQ(response->taken, ": ping\n\na");
  EXPECT_FALSE(stream->answer_instead({.status = 500, .headers = {}, .body = "error"}));
  EXPECT_EQ(response->answer, "");
  stream->finish();
  stream->ping();
  stream->ping();
  EXPECT_EQ(response->taken, ": ping\n\na");
  // Lines of JSON have no comments.
  const auto lines = std::make_shared<EventStream>(response, "application/x-ndjson");
  lines->ping();
  lines->ping();
  EXPECT_EQ(response->taken, ": ping\n\na");
  EXPECT_TRUE(lines->answer_instead({.status = 500, .headers = {}, .body = "error"}));
  EXPECT_EQ(response->answer, "error");
}

TEST(EventStream, AClientThatTakesNothingIsGivenUp) {
  const auto response = std::make_shared<FakeResponse>();
  response->refusals = 1 << 30;
  const auto stream = std::make_shared<EventStream>(response, "text/event-stream");
  const std::string large(700'000, 'x');
  EXPECT_TRUE(stream->send(large));
  EXPECT_TRUE(stream->send(large));
  EXPECT_FALSE(stream->send("more"));
  response->left = true;
  EXPECT_FALSE(std::make_shared<EventStream>(response, "")->send("a"));
}

}  // namespace
}  // namespace frugal::serve
