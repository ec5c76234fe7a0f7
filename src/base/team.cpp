#include "base/team.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <mutex>
#include <utility>

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
    if (first_) std::rethrow_exception(std::exchange(first_, nullptr));
  }

 private:
  std::mutex mutex_;
  std::exception_ptr first_;
};

// Calls body(thread, threads) on up to `wanted` threads at once; they may be fewer. The first exception is rethrown.
template <typename Body>
void parallel_region(int wanted, const Body& body) {
  FirstException exception;
#ifdef FRUGAL_STD_THREADS
  const auto run = [&](int thread) {
    inside = true;
    try {
      body(thread, wanted);
    } catch (...) {
      exception.capture();
    }
    inside = false;
  };
  std::vector<std::thread> threads;
  for (int thread = 1; thread < wanted; ++thread) threads.emplace_back(run, thread);
  run(0);
  for (std::thread& thread : threads) thread.join();
#else
#pragma omp parallel num_threads(wanted)
  {
    try {
      body(omp_get_thread_num(), omp_get_num_threads());
    } catch (...) {
      exception.capture();
    }
  }
#endif
  exception.rethrow();
}

void fork_join(int members, const std::function<void(int, int)>& body) {
  // Where fewer threads came than were asked for, they do the shares of the others.
  parallel_region(members, [&](int thread, int threads) {
    for (int member = thread; member < members; member += threads) body(member, members);
  });
}

bool inside_team() {
#ifdef FRUGAL_STD_THREADS
  return inside;
#else
  return omp_in_parallel() != 0;
#endif
}

void pause() {
#if __has_builtin(__builtin_ia32_pause)
  __builtin_ia32_pause();
#endif
}

// Returns once `value` differs from `old`: spins for 50 us, then offers the core to other threads for 2 ms, then blocks. A virtual
// core that has gone to sleep takes 0.1 to 0.2 ms to wake (measured): members that block after 50 us each wait for the other to
// wake, at every hand-over, and decoding falls from 100 to 19 tokens a second until one of them happens to be early.
template <typename T>
void await_change(const std::atomic<T>& value, T old) {
  using Clock = std::chrono::steady_clock;
  constexpr auto kSpin = std::chrono::microseconds(50), kYield = std::chrono::microseconds(2000);
  Clock::time_point begin{};
  for (;;) {
    for (int i = 0; i < 64; ++i) {
      if (value.load(std::memory_order_acquire) != old) return;
      pause();
    }
    const Clock::time_point now = Clock::now();
    if (begin == Clock::time_point{}) begin = now;
    if (now - begin >= kYield) break;
    if (now - begin >= kSpin) sched_yield();
  }
  value.wait(old, std::memory_order_acquire);
}

// The members of one hold_team: the first leads, which runs the body and hands work over; the others serve.
class HeldTeam {
 public:
  int members() const { return members_; }
  void lead(int members, const std::function<void()>& body);
  void serve(int member) {
    for (uint32_t round = 0;; ++round) {
      await_change(round_, round);
      if (work_ == nullptr) return;
      do_share(member);
      if (left_.fetch_sub(1, std::memory_order_acq_rel) == 1) left_.notify_one();
    }
  }

  void run(const std::function<void(int, int)>& work) {
    left_.store(members_ - 1, std::memory_order_relaxed);
    start_round(&work);
    do_share(0);
    for (int left = left_.load(std::memory_order_acquire); left != 0; left = left_.load(std::memory_order_acquire)) await_change(left_, left);
    exception_.rethrow();
  }

 private:
  void start_round(const std::function<void(int, int)>* work) {
    work_ = work;
    round_.fetch_add(1, std::memory_order_release);
    round_.notify_all();
  }
  void do_share(int member) {
    try {
      (*work_)(member, members_);
    } catch (...) {
      exception_.capture();
    }
  }

  int members_ = 1;
  const std::function<void(int, int)>* work_ = nullptr;  // of this round; null: the end
  FirstException exception_;
  alignas(64) std::atomic<uint32_t> round_{0};
  alignas(64) std::atomic<int> left_{0};
};

// On the thread that runs the body of hold_team, outside of any piece of work.
thread_local HeldTeam* held = nullptr;

void HeldTeam::lead(int members, const std::function<void()>& body) {
  members_ = members;
  held = this;
  try {
    body();
  } catch (...) {
    exception_.capture();
  }
  held = nullptr;
  start_round(nullptr);
  exception_.rethrow();
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
  if (held) return held->members();
#ifdef FRUGAL_STD_THREADS
  return configured_size;
#else
  return omp_get_max_threads();
#endif
}

void run_team(const std::function<void(int, int)>& body) {
  const int members = team_size();
  if (HeldTeam* const team = std::exchange(held, nullptr)) {
    // Nested calls run serially, until the work is done.
    try {
      team->run(body);
    } catch (...) {
      held = team;
      throw;
    }
    held = team;
  } else if (members == 1 || inside_team()) {
    body(0, 1);
  } else {
    fork_join(members, body);
  }
}

void parallel_for(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& body) {
  if (count <= 0) return;
  // Grains are chosen for a fork and join; a hand-over to a held team costs a fraction of that.
  const int64_t least = held ? grain / 8 : grain;
  const int64_t parts = std::min<int64_t>(team_size(), std::max<int64_t>(1, count / std::max<int64_t>(1, least)));
  if (parts == 1 || (!held && inside_team())) {
    body(0, count);
    return;
  }
  const auto share = [&](int member, int) {
    const int64_t begin = count * member / parts;
    const int64_t end = count * (member + 1) / parts;
    if (member < parts && begin < end) body(begin, end);
  };
  if (held)
    run_team(std::ref(share));  // a copy would need memory
  else
    fork_join(static_cast<int>(parts), std::ref(share));
}

void hold_team(const std::function<void()>& body) {
  if (team_size() == 1 || held || inside_team()) return body();
  HeldTeam team;
  parallel_region(team_size(), [&](int thread, int threads) {
    if (thread == 0)
      team.lead(threads, body);
    else
      team.serve(thread);
  });
}

}  // namespace frugal
