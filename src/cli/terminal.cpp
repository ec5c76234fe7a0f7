#include "cli/terminal.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <ctime>

#include "base/error.h"
#include "base/file.h"
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

std::FILE* log_file = nullptr;
int speaking_rank = 0;

void keep_in_log_file(std::string_view line) {
  if (!log_file) return;
  char when[32];
  const std::time_t now = std::time(nullptr);
  struct tm local {};
  std::strftime(when, sizeof when, "%FT%T%z", ::localtime_r(&now, &local));
  std::fputs(fmt::format("{} {}\n", when, line).c_str(), log_file);
  std::fflush(log_file);
}

// A pipe that nobody reads stops nothing: what it does not take within a second is dropped and counted, and then all until it takes some.
void say(const std::string& line) {
  static std::atomic<int64_t> dropped = 0;
  keep_in_log_file(line);
  pollfd state{STDERR_FILENO, POLLOUT, 0};
  if (::poll(&state, 1, dropped == 0 ? 1000 : 0) == 0) {
    ++dropped;
    return;
  }
  clear_bar();
  if (const int64_t count = dropped.exchange(0)) std::fputs(fmt::format("frugal: {} messages are missing here: nobody read them\n", count).c_str(), stderr);
  std::fputs((line + "\n").c_str(), stderr);
}

void show_log(LogLevel level, std::string_view message) {
  const char* prefix = level == LogLevel::debug ? "debug: " : level == LogLevel::warning ? "warning: " : level == LogLevel::error ? "error: " : "";
  say(fmt::format("frugal: {}{}", prefix, message));
}

volatile sig_atomic_t stop_signal = SIGINT;

void on_stop_signal(int signal) {
  if (stop_requested()) ::_exit(128 + signal);
  stop_signal = signal;
  request_stop();
}

}  // namespace

int exit_code_after_stop() { return 128 + stop_signal; }

void set_up_terminal(const std::string& log_level, const std::string& log_path) {
  if (!log_path.empty()) {
    // Not blocking: a pipe that nobody reads is an error, not a wait without end.
    const int file = ::open(log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0666);
    if (file < 0) fail_errno("cannot open", log_path);
    ::fcntl(file, F_SETFL, O_APPEND);
    log_file = ::fdopen(file, "a");
  }
  const LogLevel level = log_level == "debug"     ? LogLevel::debug
                         : log_level == "info"    ? LogLevel::info
                         : log_level == "warning" ? LogLevel::warning
                         : log_level == "error"   ? LogLevel::error
                                                  : LogLevel::off;
  set_log_sink(show_log, level);
  if (::isatty(STDERR_FILENO)) set_progress_sink(show_progress);
  struct sigaction action {};
  action.sa_handler = on_stop_signal;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
  install_mapping_guard();
  ::signal(SIGPIPE, SIG_IGN);
  ::signal(SIGXFSZ, SIG_IGN);  // a write beyond the limit fails with EFBIG instead
}

void speak_as_rank(int rank) {
  speaking_rank = rank;
  if (rank == 0) return;
  set_log_sink(show_log, LogLevel::error);
  set_progress_sink(nullptr);
}

void print_note(const std::string& message) {
  if (speaking_rank == 0) say(message);
}
void print_error(const std::string& message) {
  say(fmt::format("frugal: error: {}{}", speaking_rank > 0 ? fmt::format("rank {}: ", speaking_rank) : "", message));
}

void print(const std::string& text) {
  if (speaking_rank > 0) return;
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) fail_errno("cannot write", "the standard output");
}

void print_json(const Json& value) { print(value.dump(2, ' ', false, Json::error_handler_t::replace) + "\n"); }

}  // namespace frugal::cli
