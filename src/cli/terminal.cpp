#include "cli/terminal.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>

#include "base/error.h"
#include "base/log.h"
#include "base/progress.h"
#include "cli/context.h"

namespace frugal::cli {
namespace {

bool bar_shown = false;

void clear_bar() {
  if (!bar_shown) return;
  std::fputs("\r\033[K", stderr);
  bar_shown = false;
}

std::string duration(double seconds) {
  const auto whole = static_cast<int64_t>(seconds + 0.5);
  return whole >= 3600 ? fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60) : fmt::format("{:02}:{:02}", whole / 60, whole % 60);
}

// "gptq: 20% [####      ] 6/30 [00:12<00:49] detail", the look of tqdm.
void show_progress(const ProgressState& state, bool finished) {
  if (finished) {
    clear_bar();
    std::fflush(stderr);
    return;
  }
  std::string line = "\r\033[K" + state.name + ": ";
  if (state.total > 0) {
    const double share = static_cast<double>(state.done) / static_cast<double>(state.total);
    std::string bar(20, ' ');
    for (int i = 0; i < static_cast<int>(share * 20); ++i) bar[static_cast<size_t>(i)] = '#';
    line += fmt::format("{:.0f}% [{}] {}/{} [{}<{}]", 100 * share, bar, state.done, state.total, duration(state.seconds),
                        state.seconds_left < 0 ? "?" : duration(state.seconds_left));
  } else {
    line += fmt::format("{} [{}]", state.done, duration(state.seconds));
  }
  if (!state.detail.empty()) line += " " + state.detail;
  std::fputs(line.c_str(), stderr);
  std::fflush(stderr);
  bar_shown = true;
}

void show_log(LogLevel level, std::string_view message) {
  clear_bar();
  const char* prefix = level == LogLevel::debug ? "debug: " : level == LogLevel::warning ? "warning: " : level == LogLevel::error ? "error: " : "";
  std::fputs(fmt::format("frugal: {}{}\n", prefix, message).c_str(), stderr);
}

void on_interrupt(int) {
  if (stop_requested()) ::_exit(130);
  request_stop();
}

}  // namespace

void set_up_terminal(const std::string& log_level) {
  const LogLevel level = log_level == "debug"     ? LogLevel::debug
                         : log_level == "info"    ? LogLevel::info
                         : log_level == "warning" ? LogLevel::warning
                         : log_level == "error"   ? LogLevel::error
                                                  : LogLevel::off;
  set_log_sink(show_log, level);
  if (::isatty(STDERR_FILENO)) set_progress_sink(show_progress);
  struct sigaction action {};
  action.sa_handler = on_interrupt;
  ::sigaction(SIGINT, &action, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  ::signal(SIGXFSZ, SIG_IGN);  // a write beyond the limit fails with EFBIG instead
}

void print_note(const std::string& message) {
  clear_bar();
  std::fputs((message + "\n").c_str(), stderr);
}

void print_error(const std::string& message) {
  clear_bar();
  std::fputs(("frugal: error: " + message + "\n").c_str(), stderr);
}

void print(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) fail_errno("cannot write", "the standard output");
}

void print_json(const Json& value) { print(value.dump(2, ' ', false, Json::error_handler_t::replace) + "\n"); }

}  // namespace frugal::cli
