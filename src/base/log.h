// Messages for people, sent to a sink that cli/ installs (stderr there; tests capture). Library code never prints.
// Thread-safe. Text from users is escaped by the sink's caller with printable().
#pragma once

#include <fmt/format.h>

#include <functional>
#include <string_view>

namespace frugal {

enum class LogLevel { debug, info, warning, error, off };

using LogSink = std::function<void(LogLevel, std::string_view)>;

void set_log_sink(LogSink sink, LogLevel minimum);
bool log_enabled(LogLevel level);
void log_message(LogLevel level, std::string_view message);

template <typename... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  if (log_enabled(LogLevel::info)) log_message(LogLevel::info, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void log_debug(fmt::format_string<Args...> format, Args&&... args) {
  if (log_enabled(LogLevel::debug)) log_message(LogLevel::debug, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void log_warning(fmt::format_string<Args...> format, Args&&... args) {
  if (log_enabled(LogLevel::warning)) log_message(LogLevel::warning, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace frugal
