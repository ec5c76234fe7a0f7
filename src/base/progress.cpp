#include "base/progress.h"

#include <mutex>

#include "base/defer_stop.h"
#include "base/file.h"

namespace frugal {
namespace {

std::mutex sink_mutex;
ProgressSink sink;
std::atomic<bool> stop{false};
std::atomic<int> deferrals{0};
static_assert(std::atomic<bool>::is_always_lock_free);

void report(const ProgressState& state, bool finished) {
  const std::lock_guard lock(sink_mutex);
  if (sink) sink(state, finished);
}

}  // namespace

void set_progress_sink(ProgressSink new_sink) {
  const std::lock_guard lock(sink_mutex);
  sink = std::move(new_sink);
}

void request_stop() { stop.store(true, std::memory_order_relaxed); }
bool stop_requested() { return stop.load(std::memory_order_relaxed); }
void clear_stop() { stop.store(false, std::memory_order_relaxed); }

void stop_point() {
  require_whole_mappings();
  if (stop_requested() && deferrals == 0) throw Interrupted{};
}

DeferStop::DeferStop() { ++deferrals; }
DeferStop::~DeferStop() { --deferrals; }

Progress::Progress(std::string name, int64_t total) {
  state_.name = std::move(name);
  state_.total = total;
}

Progress::~Progress() {
  state_.seconds = watch_.seconds();
  report(state_, /*finished=*/true);
}

void Progress::step(int64_t count, std::string detail) {
  stop_point();
  state_.done += count;
  state_.seconds = watch_.seconds();
  state_.detail = std::move(detail);
  if (state_.total > 0 && state_.done > 0) {
    state_.seconds_left = state_.seconds * static_cast<double>(state_.total - state_.done) / static_cast<double>(state_.done);
  }
  if (last_report_ < 0 || state_.seconds - last_report_ > 0.1 || state_.done == state_.total) {
    last_report_ = state_.seconds;
    report(state_, /*finished=*/false);
  }
}

}  // namespace frugal
