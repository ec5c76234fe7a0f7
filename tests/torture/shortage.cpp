// Preloaded into a server (LD_PRELOAD): what its memory does when it runs short, or hangs. The test says which through a file that both map,
// named by SHORTAGE_FILE. Only the threads that compute are concerned: those that ever asked for as much as rows of activations take.
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace {

struct Orders {
  std::atomic<int64_t> least_bytes;  // of buffers that cannot be had, 0: all can
  std::atomic<int64_t> countdown;    // to the one allocation that fails, 0: none
  std::atomic<int64_t> nap_seconds;  // of the next buffer
  std::atomic<int64_t> failed;       // so far
};

constexpr size_t kRows = 4096;
thread_local bool computes = false;

Orders& orders() {
  static Orders* const orders = [] {
    const char* const path = std::getenv("SHORTAGE_FILE");
    const int fd = path ? ::open(path, O_RDWR | O_CLOEXEC) : -1;
    void* const memory = fd < 0 ? MAP_FAILED : ::mmap(nullptr, sizeof(Orders), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) std::abort();
    ::close(fd);
    return static_cast<Orders*>(memory);
  }();
  return *orders;
}

template <typename Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

bool counted_out() {
  Orders& now = orders();
  if (!computes || now.countdown.load(std::memory_order_relaxed) <= 0 || now.countdown.fetch_sub(1) != 1) return false;
  ++now.failed;
  return true;
}

}  // namespace

extern "C" int posix_memalign(void** memory, size_t alignment, size_t bytes) {
  static auto* const real = next<int(void**, size_t, size_t)>("posix_memalign");
  Orders& now = orders();
  computes |= bytes >= kRows;
  if (computes) {
    for (auto nap = static_cast<unsigned>(now.nap_seconds.exchange(0)); nap > 0;) nap = ::sleep(nap);  // a signal ends a sleep
    const int64_t least = now.least_bytes.load(std::memory_order_relaxed);
    if (least > 0 && bytes >= static_cast<size_t>(least)) {
      ++now.failed;
      return ENOMEM;
    }
    if (counted_out()) return ENOMEM;
  }
  return real(memory, alignment, bytes);
}

void* operator new(size_t bytes) {
  static auto* const real = next<void*(size_t)>("_Znwm");
  if (counted_out()) throw std::bad_alloc();
  return real(bytes);
}
