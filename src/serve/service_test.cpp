// What the service says of a step that does not end.
#include "serve/service.h"

#include <gmock/gmock.h>

#include <future>

#include "hand_clock.h"
#include "models/test_tools.h"

namespace frugal::serve {
namespace {

// A thread that has nothing to do says so each second, which this clock does not know of.
constexpr std::chrono::milliseconds kBeat{1200};

class Ended : public engine::Listener {
 public:
  void on_piece(int64_t, engine::Piece) override {}
  void on_end(int64_t, const engine::ChoiceEnd&) override { over.set_value(); }
  void on_error(const Error&) override { over.set_value(); }
  std::promise<void> over;
};

// A service with one model, whose steps begin and then wait until release().
class HeldService {
 public:
  HeldService() : service(options(clock)) {
    ModelSource source;
    source.name = source.path = "m";
    source.load = [&](uint64_t) {
      engine::EngineOptions options;
      options.clock = &clock;
      const auto model = ServedModel::make(models::Loader().load_any(models::TinyModels::get().path("qwen3"), nn::Execution::packed), options);
      model->engine->before_step = [&](const std::vector<engine::StepPart>&) {
        if (!std::exchange(begun_, true)) begins_.set_value();
        released_.wait();
      };
      return model;
    };
    service.catalog().add(std::move(source));
    std::promise<std::shared_ptr<ServedModel>> loaded;
    service.catalog().load("m", [&](const std::shared_ptr<ServedModel>& model, const std::exception_ptr&) { loaded.set_value(model); });
    model_ = loaded.get_future().get();
    engine::Request request;
    request.prompt = {1, 2, 3};
    request.max_tokens = 1;
    model_->engine->submit({{request, ended_}});
    begins_.get_future().wait();
  }
  ~HeldService() {
    if (!let_go_) release_.set_value();
  }
  static ServiceOptions options(const Clock& clock) {
    ServiceOptions options;
    options.clock = &clock;
    return options;
  }
  // As the thread that serves does.
  void pass(double seconds) {
    for (double t = 0; t < seconds - 0.05; t += 0.1) {
      clock.advance(0.1);
      service.watch();
    }
  }
  void release() {
    let_go_ = true;
    release_.set_value();
    ended_->over.get_future().wait();
  }

  HandClock clock;

 private:
  std::promise<void> begins_, release_;
  std::shared_future<void> released_ = release_.get_future().share();
  std::shared_ptr<Ended> ended_ = std::make_shared<Ended>();
  std::shared_ptr<ServedModel> model_;
  bool begun_ = false, let_go_ = false;

 public:
  Service service;
};

TEST(Health, S11AStepThatDoesNotEndIsAHang) {
  HeldService held;
  held.pass(8.5);
  EXPECT_FALSE(held.service.hang());
  held.pass(1);
  std::this_thread::sleep_for(kBeat);
  ASSERT_TRUE(held.service.hang());
  EXPECT_EQ(held.service.hang()->model, "m");
  EXPECT_NEAR(held.service.hang()->seconds, 9.5, 0.01);
  held.release();
  for (int i = 0; i < 10 && held.service.hang(); ++i) std::this_thread::sleep_for(kBeat);
  EXPECT_FALSE(held.service.hang());
}

TEST(Health, S11WhatAProcessSleptIsNoHangOfItsStep) {
  HeldService held;
  held.pass(5);
  held.clock.advance(3600);  // stopped, or the machine asleep
  EXPECT_FALSE(held.service.hang());
  held.pass(8.5);
  EXPECT_FALSE(held.service.hang());
  held.pass(1);
  std::this_thread::sleep_for(kBeat);
  EXPECT_TRUE(held.service.hang());
}

TEST(Health, S16TheWallClockDoesNotMatter) {
  HeldService held;
  held.pass(5);
  for (const int64_t jump : {-86'400, -3'600, 86'400}) {
    held.clock.set_wall(784111777 + jump);
    EXPECT_FALSE(held.service.hang());
  }
  held.pass(4.5);
  std::this_thread::sleep_for(kBeat);
  EXPECT_TRUE(held.service.hang());
}

}  // namespace
}  // namespace frugal::serve
