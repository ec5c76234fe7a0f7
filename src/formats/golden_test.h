// For the tests of this folder: runs the scripts in tests/oracle once per process and reads what they wrote.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include <fmt/format.h>

namespace frugal::formats {

// Printed with every failure; FRUGAL_SEED repeats a run.
inline uint32_t test_seed() {
  static const uint32_t seed = [] {
    const char* given = std::getenv("FRUGAL_SEED");
    const uint32_t value = given != nullptr ? static_cast<uint32_t>(std::atoi(given)) : std::random_device{}() % 1000000;
    fmt::print("formats_test: seed {}\n", value);
    return value;
  }();
  return seed;
}

inline std::string python() {
  const char* given = std::getenv("FRUGAL_PYTHON");
  return given != nullptr ? given : FRUGAL_SOURCE_DIR "/.venv/bin/python";
}

// Runs tests/oracle/<script> into a new temporary folder, which it removes at exit.
class Golden {
 public:
  explicit Golden(const std::string& script) {
    folder_ = std::filesystem::temp_directory_path() / fmt::format("frugal-{}-{}", script, getpid());
    std::filesystem::create_directories(folder_);
    const std::string command = fmt::format("'{}' '{}/tests/oracle/{}' '{}' {}", python(), FRUGAL_SOURCE_DIR, script, folder_.string(), test_seed());
    ok_ = std::system(command.c_str()) == 0;
  }
  ~Golden() {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  bool ok() const { return ok_; }
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
  std::filesystem::path folder_;
  bool ok_ = false;
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
