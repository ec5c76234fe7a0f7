// For the tests of every folder: the seed of a run, temporary folders, the oracles in tests/oracle, and where the real model and
// the shared data lie.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/wait.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>

#include "base/error.h"

namespace frugal::testing {

inline std::string environment_or(const char* name, const std::string& otherwise) {
  const char* value = std::getenv(name);
  return value && *value ? value : otherwise;
}

// Drawn once per process, below a million, and printed; FRUGAL_TEST_SEED repeats a run.
inline uint32_t test_seed() {
  static const uint32_t seed = [] {
    const std::string drawn = environment_or("FRUGAL_TEST_SEED", std::to_string(std::random_device{}() % 1'000'000));
    std::printf("FRUGAL_TEST_SEED=%s\n", drawn.c_str());
    return static_cast<uint32_t>(std::stoul(drawn));
  }();
  return seed;
}

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "frugal-test-XXXXXX").string();
    if (!::mkdtemp(name.data())) fail_errno("cannot create", name);
    path_ = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }
  std::string write(const std::string& name, const std::string& content) const {
    const std::string path = path_ + "/" + name;
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    std::ofstream(path, std::ios::binary) << content;
    return path;
  }

 private:
  std::string path_;
};

inline std::string python() { return environment_or("FRUGAL_PYTHON", FRUGAL_SOURCE_DIR "/.venv/bin/python"); }

// Runs tests/oracle/<script> with the project's Python and gives its standard output. An absent oracle fails the test.
inline std::string run_oracle(const std::string& script, const std::string& arguments) {
  const std::string command = python() + " " FRUGAL_SOURCE_DIR "/tests/oracle/" + script + " " + arguments;
  FILE* pipe = ::popen(command.c_str(), "r");
  if (!pipe) fail_errno("cannot run", command);
  std::string output;
  char buffer[65536];
  while (const size_t count = std::fread(buffer, 1, sizeof buffer, pipe)) output.append(buffer, count);
  const int status = ::pclose(pipe);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    ADD_FAILURE() << "the oracle failed: " << command << "\n" << output;
    fail(ErrorKind::internal, "{}", command);
  }
  return output;
}

// SmolLM2-135M-Instruct as scripts/fetch-model leaves it, the same rule as in scripts/lib.sh.
inline std::string smollm2_path() {
  const std::string shared = environment_or("XDG_CACHE_HOME", environment_or("HOME", "/root") + "/.cache");
  return environment_or("FRUGAL_CACHE", shared + "/frugal") + "/models/SmolLM2-135M-Instruct.Q4_1.gguf";
}

inline std::filesystem::path shared_data() { return FRUGAL_SOURCE_DIR "/../shared/data"; }
inline bool shared_data_is_there() { return std::filesystem::exists(shared_data()); }

}  // namespace frugal::testing
