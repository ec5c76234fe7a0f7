// For the tests of this folder: runs the scripts in tests/oracle once per process and reads what they wrote.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "oracle.h"

namespace frugal::formats {

using testing::test_seed;

// Runs tests/oracle/<script> into a temporary folder.
class Golden {
 public:
  explicit Golden(const std::string& script) { testing::run_oracle(script, fmt::format("{} {}", folder_.path(), test_seed())); }
  bool has(const std::string& name) const { return std::filesystem::exists(folder_ / name); }

  template <typename T>
  std::vector<T> read(const std::string& name) const {
    std::ifstream file(folder_ / name, std::ios::binary);
    EXPECT_TRUE(file.good()) << name << " is missing";
    const std::vector<char> bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    std::vector<T> values(bytes.size() / sizeof(T));
    if (!values.empty()) std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
    return values;
  }

 private:
  testing::TemporaryFolder folder_;
};

inline const Golden& formats_golden() {
  static const Golden golden("make_formats_golden.py");
  return golden;
}

inline const Golden& nf4_golden() {
  static const Golden golden("make_nf4_golden.py");
  return golden;
}

}  // namespace frugal::formats
