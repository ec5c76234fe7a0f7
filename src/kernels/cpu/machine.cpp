#include "kernels/cpu/machine.h"

#include <algorithm>
#include <atomic>
#include <ctime>
#include <functional>
#include <vector>

#include "base/process.h"
#include "base/team.h"
#include "kernels/cpu/aligned_buffer.h"
#include "kernels/cpu/kernel_table.h"

namespace frugal::kernels {
namespace {

// On one thread CPU time, so that other programs do not count.
double now() {
  timespec time{};
  clock_gettime(team_size() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// Calls pass() -> units/s until `seconds` are over and returns the pass at the fastest quarter: other programs slow most passes
// down, and a CPU clock that is corrected for stolen time makes a few look too fast.
template <typename Pass>
double good_rate(double seconds, const Pass& pass) {
  std::vector<double> rates;
  const double start = now();
  do {
    if (const double rate = pass(); rate > 0) rates.push_back(rate);
  } while (now() - start < seconds);
  if (rates.empty()) return 0;
  const auto at = rates.begin() + static_cast<int64_t>(rates.size() / 4);
  std::nth_element(rates.begin(), at, rates.end(), std::greater<>());
  return *at;
}

// Of the members together, each by its own CPU time: a loop is shorter than it may take to wake the team.
template <typename Loop>
double loop_rate(const Loop& loop) {
  return good_rate(0.2, [&] {
    std::atomic<double> rate{0};
    run_team([&](int, int) {
      const double before = thread_seconds();
      const auto units = static_cast<double>(loop());
      const double taken = thread_seconds() - before;
      if (taken > 0) rate += units / taken;
    });
    return rate.load();
  });
}

int64_t loop_iterations() { return kernels().isa == Isa::scalar ? 1000 : 20000; }

}  // namespace

double measure_float_peak() {
  return loop_rate([] { return kernels().float_loop(loop_iterations() * 5); });
}

MachineLimits measure_machine() {
  const KernelTable& table = kernels();
  MachineLimits limits;
  limits.threads = team_size();
  limits.isa = to_string(table.isa);
  limits.features = cpu_features();

  const int64_t iterations = loop_iterations();
  limits.integer_peak = loop_rate([&] { return table.integer_loop(iterations, false); });
  limits.integer_peak_4bit = loop_rate([&] { return table.integer_loop(iterations, true); });
  limits.float_peak = measure_float_peak();

  // 128 MB: more than the caches of the machines we aim at share per core.
  constexpr int64_t kBytes = int64_t{128} << 20;
  const AlignedBuffer buffer(kBytes);
  std::atomic<float> keep{0};
  limits.read_bandwidth = good_rate(0.25, [&] {
    const double before = now();
    run_team([&](int member, int members) {
      const int64_t begin = kBytes / 4096 * member / members * 4096, end = kBytes / 4096 * (member + 1) / members * 4096;
      keep = table.read_memory(buffer.data() + begin, end - begin);
    });
    const double taken = now() - before;
    return taken > 0 ? static_cast<double>(kBytes) / taken : 0;
  });
  return limits;
}

}  // namespace frugal::kernels
