#include "kernels/cpu/machine.h"

#include <algorithm>
#include <atomic>
#include <ctime>
#include <functional>
#include <vector>

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

// Calls pass() -> units done until `seconds` are over and returns the rate of the pass at the fastest quarter, in units/s: other
// programs slow most passes down, and a CPU clock that is corrected for stolen time makes a few look too fast.
template <typename Pass>
double good_rate(double seconds, const Pass& pass) {
  std::vector<double> rates;
  const double start = now();
  do {
    const double before = now();
    const double units = pass();
    const double taken = now() - before;
    if (taken > 0) rates.push_back(units / taken);
  } while (now() - start < seconds);
  if (rates.empty()) return 0;
  const auto at = rates.begin() + static_cast<int64_t>(rates.size() / 4);
  std::nth_element(rates.begin(), at, rates.end(), std::greater<>());
  return *at;
}

template <typename Loop>
double loop_rate(const Loop& loop) {
  return good_rate(0.2, [&] {
    std::atomic<int64_t> done{0};
    run_team([&](int, int) { done += loop(); });
    return static_cast<double>(done.load());
  });
}

}  // namespace

MachineLimits measure_machine() {
  const KernelTable& table = kernels();
  MachineLimits limits;
  limits.threads = team_size();
  limits.isa = to_string(table.isa);
  limits.features = cpu_features();

  const int64_t iterations = table.isa == Isa::scalar ? 1000 : 20000;
  limits.integer_peak = loop_rate([&] { return table.integer_loop(iterations, false); });
  limits.integer_peak_4bit = loop_rate([&] { return table.integer_loop(iterations, true); });
  limits.float_peak = loop_rate([&] { return table.float_loop(iterations * 5); });

  // 128 MB: more than the caches of the machines we aim at share per core.
  constexpr int64_t kBytes = int64_t{128} << 20;
  const AlignedBuffer buffer(kBytes);
  std::atomic<float> keep{0};
  limits.read_bandwidth = good_rate(0.25, [&] {
    run_team([&](int member, int members) {
      const int64_t begin = kBytes / 4096 * member / members * 4096, end = kBytes / 4096 * (member + 1) / members * 4096;
      keep = table.read_memory(buffer.data() + begin, end - begin);
    });
    return static_cast<double>(kBytes);
  });
  return limits;
}

}  // namespace frugal::kernels
