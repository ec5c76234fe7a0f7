#include "base/log.h"

#include <atomic>
#include <mutex>

namespace frugal {
namespace {

std::mutex sink_mutex;
LogSink sink;
std::atomic<LogLevel> minimum_level{LogLevel::off};

}  // namespace

void set_log_sink(LogSink new_sink, LogLevel minimum) {
  const std::lock_guard lock(sink_mutex);
  sink = std::move(new_sink);
  minimum_level = sink ? minimum : LogLevel::off;
}

bool log_enabled(LogLevel level) { return level >= minimum_level.load(std::memory_order_relaxed); }

void log_message(LogLevel level, std::string_view message) {
  const std::lock_guard lock(sink_mutex);
  if (sink && level >= minimum_level) sink(level, message);
}

}  // namespace frugal
