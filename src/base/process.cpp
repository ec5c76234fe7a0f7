#include "base/process.h"

#include <fcntl.h>
#include <unistd.h>

#include <charconv>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

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
