// What the tests of this folder share: running on each instruction set, and buffers with guards.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <ctime>
#include <string>
#include <vector>

#include "base/rng.h"
#include "base/team.h"
#include "kernels/cpu/kernel_table.h"
#include "oracle.h"

namespace frugal::kernels {

namespace emulated_avx512 {
extern const KernelTable kTable;
}

// Runs each test once per set that the machine has, and once with the AVX-512 bodies emulated by SIMDe.
class KernelTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    rng_ = Rng(testing::test_seed());
#ifndef FRUGAL_NO_EMULATION
    if (GetParam() == "emulated") {
      override_kernels(&emulated_avx512::kTable);
      ASSERT_EQ(active_isa(), Isa::avx512);
      return;
    }
#endif
    for (const Isa isa : available_isas()) {
      if (to_string(isa) == GetParam()) set_isa(isa);
    }
    ASSERT_EQ(to_string(active_isa()), GetParam());
  }
  void TearDown() override { override_kernels(nullptr); }
  bool slow() const { return GetParam() != "avx2" && GetParam() != "avx512"; }

  Rng rng_;
};

inline std::vector<std::string> tested_sets() {
  std::vector<std::string> names;
#ifndef FRUGAL_NO_EMULATION
  names.emplace_back("emulated");
#endif
  for (const Isa isa : available_isas()) names.emplace_back(to_string(isa));
  return names;
}
#define FRUGAL_FOR_EACH_SET(Suite)                                                           \
  INSTANTIATE_TEST_SUITE_P(Sets, Suite, ::testing::ValuesIn(frugal::kernels::tested_sets()), \
                           [](const ::testing::TestParamInfo<std::string>& info) { return info.param; })

// `count` elements at an address that is a multiple of the element's size only, with guard bytes around.
template <typename T>
class Guarded {
 public:
  explicit Guarded(int64_t count, T value = T{}) : count_(static_cast<size_t>(count)) {
    bytes_.assign(kGuard * 2 + count_ * sizeof(T), 0xA5);
    for (size_t i = 0; i < count_; ++i) std::memcpy(&bytes_[kGuard + i * sizeof(T)], &value, sizeof(T));
  }
  T* data() { return reinterpret_cast<T*>(bytes_.data() + kGuard); }
  const T* data() const { return reinterpret_cast<const T*>(bytes_.data() + kGuard); }
  T& operator[](int64_t i) { return data()[i]; }
  const T& operator[](int64_t i) const { return data()[i]; }
  int64_t size() const { return static_cast<int64_t>(count_); }
  bool intact() const {
    for (size_t i = 0; i < kGuard; ++i) {
      if (bytes_[i] != 0xA5 || bytes_[bytes_.size() - 1 - i] != 0xA5) return false;
    }
    return true;
  }
  bool same_bits(const Guarded& other) const { return bytes_ == other.bytes_; }

 private:
  static constexpr size_t kGuard = 68;  // 64 + 4: the data are not aligned to a vector
  size_t count_;
  std::vector<uint8_t> bytes_;
};

template <typename Values>
void fill_normal(Values& values, Rng& rng, double scale = 1) {
  for (int64_t i = 0; i < static_cast<int64_t>(values.size()); ++i) values[i] = static_cast<float>(scale * rng.normal());
}

// Restores the size of the team.
class TeamSize {
 public:
  explicit TeamSize(int threads) : before_(team_size()) { set_team_size(threads); }
  ~TeamSize() { set_team_size(before_); }

 private:
  int before_;
};

}  // namespace frugal::kernels
