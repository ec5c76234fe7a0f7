#include "kernels/cpu/machine.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>

#include "base/error.h"
#include "kernels/cpu/kernel_test_support.h"

namespace frugal::kernels {
namespace {

TEST(Machine, LimitsAreMeasuredAndPlausible) {
  const auto start = std::chrono::steady_clock::now();
  const MachineLimits limits = measure_machine();
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
  EXPECT_GT(limits.read_bandwidth, 1e8);
  EXPECT_GT(limits.integer_peak, 1e7);
  EXPECT_GE(limits.integer_peak_4bit, 1e7);
  EXPECT_GT(limits.float_peak, 1e7);
  EXPECT_EQ(limits.threads, team_size());
}

TEST(Isa, TheEnvironmentForcesASetAndABadNameIsAnError) {
  const char* before = std::getenv("FRUGAL_ISA");
  const std::string saved = before == nullptr ? "" : before;
  for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512}) {
    override_kernels(nullptr);
    setenv("FRUGAL_ISA", std::string(to_string(isa)).c_str(), 1);
    const auto sets = available_isas();
    if (std::find(sets.begin(), sets.end(), isa) != sets.end()) {
      EXPECT_EQ(active_isa(), isa);
    } else {
      EXPECT_THROW(active_isa(), Error);
    }
  }
  override_kernels(nullptr);
  setenv("FRUGAL_ISA", "sse9", 1);
  EXPECT_THROW(active_isa(), Error);
  unsetenv("FRUGAL_ISA");
  EXPECT_EQ(active_isa(), available_isas().back());
  if (before != nullptr) setenv("FRUGAL_ISA", saved.c_str(), 1);
  override_kernels(nullptr);
}

}  // namespace
}  // namespace frugal::kernels
