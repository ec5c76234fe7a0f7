// Preloaded into a process (LD_PRELOAD): the STARVED_AT-th allocation of memory by C++ or for a tensor since main() began fails, and with
// STARVED_FOR_EVER all after it. How many there were is written to the file STARVED_COUNT.
#include <dlfcn.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <new>

namespace {

std::atomic<bool> begun{false};  // libtorch registers its operators before
std::atomic<long> count{0};
int (*main_of_process)(int, char**, char**);

int counted_main(int argc, char** argv, char** environment) {
  begun = true;
  return main_of_process(argc, argv, environment);
}

long number_of(const char* name) {
  const char* const text = std::getenv(name);
  return text ? std::atol(text) : 0;
}

bool fails() {
  static const long at = number_of("STARVED_AT");
  static const bool for_ever = number_of("STARVED_FOR_EVER") != 0;
  if (!begun) return false;
  const long now = ++count;
  return at > 0 && (for_ever ? now >= at : now == at);
}

struct Counter {
  ~Counter() {
    if (const char* const path = std::getenv("STARVED_COUNT")) {
      if (std::FILE* const file = std::fopen(path, "w")) std::fprintf(file, "%ld", count.load()), std::fclose(file);
    }
  }
} counter;

}  // namespace

extern "C" int __libc_start_main(int (*main)(int, char**, char**), int argc, char** argv, int (*init)(int, char**, char**), void (*finish)(), void (*loader)(),
                                 void* stack) {
  using Function = decltype(__libc_start_main);
  main_of_process = main;
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, "__libc_start_main"))(counted_main, argc, argv, init, finish, loader, stack);
}

extern "C" int posix_memalign(void** memory, size_t alignment, size_t bytes) {
  using Function = int(void**, size_t, size_t);
  static auto* const real = reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, "posix_memalign"));
  return fails() ? ENOMEM : real(memory, alignment, bytes);
}

void* operator new(size_t bytes) {
  void* const memory = fails() ? nullptr : std::malloc(bytes);
  if (!memory) throw std::bad_alloc();
  return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
