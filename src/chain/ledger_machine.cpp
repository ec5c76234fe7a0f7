#include <unistd.h>

#include <fstream>

#include "base/error.h"
#include "chain/ledger.h"

namespace frugal::chain {
namespace {

// The text behind the first "key : value" line of a /proc file, or "".
std::string proc_value(const char* path, std::string_view key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(key)) continue;
    const size_t colon = line.find(':');
    if (colon == line.npos) continue;
    const size_t begin = line.find_first_not_of(" \t", colon + 1);
    return begin == line.npos ? "" : line.substr(begin);
  }
  return "";
}

// "MemTotal: 24576000 kB" in bytes.
int64_t memory_bytes() {
  const std::string text = proc_value("/proc/meminfo", "MemTotal");
  int64_t kib = 0;
  for (size_t i = 0; i < text.size() && i < 15 && text[i] >= '0' && text[i] <= '9'; ++i) kib = kib * 10 + (text[i] - '0');
  return kib * 1024;
}

// FNV-1a, 64 bits: enough to tell a handful of machines apart.
std::string hash_of(std::string_view text) {
  uint64_t hash = 0xCBF29CE484222325;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3;
  return fmt::format("{:016x}", hash);
}

}  // namespace

Machine this_machine(std::string isa, int threads) {
  char host[256] = {};
  ::gethostname(host, sizeof host - 1);
  Machine machine;
  machine.cpu = proc_value("/proc/cpuinfo", "model name");
  machine.isa = std::move(isa);
  machine.host = hash_of(host);
  machine.cores = ::sysconf(_SC_NPROCESSORS_ONLN);
  machine.threads = threads;
  machine.memory_bytes = memory_bytes();
  return machine;
}

}  // namespace frugal::chain
