// What the tests of this folder share: a temporary folder, files in it, the Python oracle, and raw bytes.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/wait.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "base/error.h"

namespace frugal::io {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "frugal-io-XXXXXX").string();
    if (!::mkdtemp(name.data())) fail_errno("cannot create", name);
    path_ = name;
  }
  ~TemporaryFolder() {
    std::error_code code;
    std::filesystem::remove_all(path_, code);
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

// Runs tests/oracle/<script> with the project's Python and gives its standard output. An absent oracle fails the test.
inline std::string run_oracle(const std::string& script, const std::string& arguments) {
  const char* chosen = std::getenv("FRUGAL_PYTHON");
  const std::string python = chosen ? chosen : FRUGAL_SOURCE_DIR "/.venv/bin/python";
  const std::string command = python + " " FRUGAL_SOURCE_DIR "/tests/oracle/" + script + " " + arguments;
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

inline bool shared_data_is_there() { return std::filesystem::exists(FRUGAL_SOURCE_DIR "/../shared/data"); }

template <typename T>
std::string raw(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof(T)};
}

inline std::span<const std::byte> bytes_of_text(const std::string& text) { return std::as_bytes(std::span(text)); }

// Runs `action` and says how it ended: "ok", or "<kind>: <message>". Anything but an Error fails the test.
template <typename Action>
std::string outcome_of(Action&& action) {
  try {
    action();
    return "ok";
  } catch (const Error& error) {
    return std::string(to_string(error.kind())) + ": " + error.what();
  }
}

}  // namespace frugal::io
