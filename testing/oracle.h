// For the tests of every folder: the seed of a run, temporary folders, the oracles in tests/oracle, and where the real model and
// the shared data lie.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>
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

// One Python for all oracles of a test binary (tests/oracle/serve.py): importing torch and transformers takes seconds each time.
class OracleServer {
 public:
  OracleServer() {
    int request[2], answer[2];
    if (::pipe2(request, O_CLOEXEC) != 0 || ::pipe2(answer, O_CLOEXEC) != 0) fail_errno("cannot create", "a pipe");
    const std::string program = python(), script = FRUGAL_SOURCE_DIR "/tests/oracle/serve.py";
    const pid_t child = ::fork();
    if (child < 0) fail_errno("cannot start", program);
    if (child == 0) {
      ::dup2(request[0], STDIN_FILENO);
      ::dup2(answer[1], STDOUT_FILENO);
      ::execl(program.c_str(), program.c_str(), script.c_str(), nullptr);
      ::_exit(127);
    }
    ::close(request[0]);
    ::close(answer[1]);
    requests_ = ::fdopen(request[1], "w");
    answers_ = ::fdopen(answer[0], "r");
  }
  OracleServer(const OracleServer&) = delete;  // lives until the process ends, and ends with it: its standard input closes

  // The exit code of the script; -1 when there is none.
  int run(const std::string& output, const std::string& script, const std::string& arguments) {
    std::fprintf(requests_, "%s %s %s\n", output.c_str(), script.c_str(), arguments.c_str());
    std::fflush(requests_);
    int code = -1;
    return std::fscanf(answers_, "%d", &code) == 1 ? code : -1;
  }

 private:
  FILE *requests_, *answers_;
};

// Runs tests/oracle/<script> with the project's Python and gives what it prints; `arguments` are separated by spaces. An absent
// oracle fails the test, with what the script wrote to both its outputs.
inline std::string run_oracle(const std::string& script, const std::string& arguments) {
  static OracleServer server;
  const TemporaryFolder folder;
  const int code = server.run(folder / "output", script, arguments);
  const auto written = [&](const std::string& name) {
    std::ostringstream text;
    text << std::ifstream(folder / name, std::ios::binary).rdbuf();
    return text.str();
  };
  if (code != 0) {
    ADD_FAILURE() << "the oracle failed: " << script << " " << arguments << "\n" << written("output") << written("output.errors");
    fail(ErrorKind::internal, "{} {}", script, arguments);
  }
  return written("output");
}

// SmolLM2-135M-Instruct as scripts/fetch-model leaves it, the same rule as in scripts/lib.sh.
inline std::string smollm2_path() {
  const std::string shared = environment_or("XDG_CACHE_HOME", environment_or("HOME", "/root") + "/.cache");
  return environment_or("FRUGAL_CACHE", shared + "/frugal") + "/models/SmolLM2-135M-Instruct.Q4_1.gguf";
}

inline std::filesystem::path shared_data() { return FRUGAL_SOURCE_DIR "/../shared/data"; }
inline bool shared_data_is_there() { return std::filesystem::exists(shared_data()); }

}  // namespace frugal::testing
