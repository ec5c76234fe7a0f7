#include "base/process.h"

#include <execinfo.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <charconv>
#include <chrono>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <thread>

namespace frugal {
namespace {

uint64_t status_kilobytes(std::string_view key) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(key)) continue;
    const size_t begin = line.find_first_of("0123456789");
    uint64_t value = 0;
    if (begin != std::string::npos) std::from_chars(line.data() + begin, line.data() + line.size(), value);
    return value;
  }
  return 0;
}

std::atomic<int> stacks_fd{-1};
std::atomic<bool> stack_written{false};

void write_own_stack(int) {
  constexpr int kMostFrames = 64;
  void* frames[kMostFrames];
  ::backtrace_symbols_fd(frames, ::backtrace(frames, kMostFrames), stacks_fd);
  stack_written = true;
}

void write_line(int fd, std::string line) {
  line += '\n';
  (void)!::write(fd, line.data(), line.size());
}

}  // namespace

uint64_t peak_rss_bytes() { return status_kilobytes("VmHWM:") * 1024; }

double thread_seconds() {
  timespec time{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

void reset_peak_rss() {
  const int fd = ::open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
  if (fd < 0) return;
  (void)!::write(fd, "5", 1);
  ::close(fd);
}

void write_stacks(int fd) {
  constexpr auto kPatience = std::chrono::milliseconds(500);
  void* first = nullptr;
  ::backtrace(&first, 1);  // the first call loads a library, which a signal handler must not
  stacks_fd = fd;
  struct sigaction action = {};
  action.sa_handler = write_own_stack;
  action.sa_flags = SA_RESTART;
  ::sigaction(SIGUSR2, &action, nullptr);
  std::error_code code;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task", code)) {
    std::string name;
    std::getline(std::ifstream(entry.path() / "comm"), name);
    const std::string thread = entry.path().filename().string();
    int id = 0;
    std::from_chars(thread.data(), thread.data() + thread.size(), id);
    write_line(fd, "thread " + thread + " (" + name + "):");
    stack_written = false;
    if (::syscall(SYS_tgkill, ::getpid(), id, SIGUSR2) != 0) continue;  // it has ended
    const auto end = std::chrono::steady_clock::now() + kPatience;
    while (!stack_written && std::chrono::steady_clock::now() < end) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (!stack_written) write_line(fd, "  does not answer: it waits in the kernel");
  }
}

std::optional<double> package_energy_joules() {
  namespace fs = std::filesystem;
  std::error_code code;
  std::optional<double> total;
  for (const auto& entry : fs::directory_iterator("/sys/class/powercap", code)) {
    const std::string name = entry.path().filename().string();
    // Packages are "intel-rapl:0"; "intel-rapl:0:0" are parts of them.
    if (!name.starts_with("intel-rapl:") || name.find(':', 11) != std::string::npos) continue;
    std::ifstream file(entry.path() / "energy_uj");
    double microjoules = 0;
    if (file >> microjoules) total = total.value_or(0) + microjoules * 1e-6;
  }
  return total;
}

}  // namespace frugal
