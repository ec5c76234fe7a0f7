#include "base/team.h"

#include <algorithm>
#include <exception>
#include <mutex>

#include "base/error.h"

#ifdef FRUGAL_STD_THREADS
#include <thread>
#include <vector>
#else
#include <omp.h>
#endif

namespace frugal {
namespace {

#ifdef FRUGAL_STD_THREADS
int configured_size = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
thread_local bool inside = false;
#endif

class FirstException {
 public:
  void capture() {
    const std::lock_guard lock(mutex_);
    if (!first_) first_ = std::current_exception();
  }
  void rethrow() {
    if (first_) std::rethrow_exception(first_);
  }

 private:
  std::mutex mutex_;
  std::exception_ptr first_;
};

void fork_join(int members, const std::function<void(int, int)>& body) {
  FirstException exception;
#ifdef FRUGAL_STD_THREADS
  const auto run = [&](int member) {
    inside = true;
    try {
      body(member, members);
    } catch (...) {
      exception.capture();
    }
    inside = false;
  };
  std::vector<std::thread> threads;
  for (int member = 1; member < members; ++member) threads.emplace_back(run, member);
  run(0);
  for (std::thread& thread : threads) thread.join();
#else
#pragma omp parallel num_threads(members)
  {
    try {
      // libgomp may give fewer threads than asked for: the rest of the shares are done by those that came.
      for (int member = omp_get_thread_num(); member < members; member += omp_get_num_threads()) body(member, members);
    } catch (...) {
      exception.capture();
    }
  }
#endif
  exception.rethrow();
}

bool inside_team() {
#ifdef FRUGAL_STD_THREADS
  return inside;
#else
  return omp_in_parallel() != 0;
#endif
}

}  // namespace

void set_team_size(int threads) {
  if (threads < 1 || threads > 4096) fail(ErrorKind::invalid_input, "threads must be in 1..4096, is {}", threads);
#ifdef FRUGAL_STD_THREADS
  configured_size = threads;
#else
  omp_set_num_threads(threads);
#endif
}

int team_size() {
#ifdef FRUGAL_STD_THREADS
  return configured_size;
#else
  return omp_get_max_threads();
#endif
}

void run_team(const std::function<void(int, int)>& body) {
  const int members = team_size();
  if (members == 1 || inside_team()) {
    body(0, 1);
  } else {
    fork_join(members, body);
  }
}

void parallel_for(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& body) {
  if (count <= 0) return;
  const int64_t parts = std::min<int64_t>(team_size(), std::max<int64_t>(1, count / std::max<int64_t>(1, grain)));
  if (parts == 1 || inside_team()) {
    body(0, count);
    return;
  }
  fork_join(static_cast<int>(parts), [&](int member, int members) {
    const int64_t begin = count * member / members;
    const int64_t end = count * (member + 1) / members;
    if (begin < end) body(begin, end);
  });
}

}  // namespace frugal
