// Shared by the tests of tokenizers: where the data lies, and oracles run through Python.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "text/tokenizer.h"

namespace frugal::text::testing {

namespace fs = std::filesystem;

inline fs::path source_dir() { return FRUGAL_SOURCE_DIR; }
inline fs::path shared_dir() { return source_dir() / ".." / "shared"; }
inline fs::path vocabulary_dir() { return shared_dir() / "data" / "tokenizers"; }

inline std::string read_file(const fs::path& path) { return read_text_file(path.string(), size_t{512} << 20); }
inline Json read_json(const fs::path& path) { return parse_json(read_file(path), path.string(), {.max_bytes = size_t{512} << 20}); }

inline std::string python() {
  const char* given = std::getenv("FRUGAL_PYTHON");
  return given ? given : (source_dir() / ".venv" / "bin" / "python").string();
}

// A folder that is removed with the object.
class ScratchDir {
 public:
  ScratchDir() {
    std::string name = (fs::temp_directory_path() / "frugal_text_XXXXXX").string();
    if (!mkdtemp(name.data())) throw std::runtime_error("mkdtemp failed");
    path_ = name;
  }
  ~ScratchDir() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  ScratchDir(const ScratchDir&) = delete;
  ScratchDir& operator=(const ScratchDir&) = delete;
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

// Runs tests/oracle/<script> with the arguments; an oracle that is absent or fails is a failure of the test.
inline void run_oracle(const std::string& script, const std::string& arguments) {
  const std::string command = python() + " " + (source_dir() / "tests" / "oracle" / script).string() + " " + arguments + " 2>&1 >/dev/null | tail -5 >&2; exit ${PIPESTATUS[0]}";
  const int status = std::system(("bash -c '" + command + "'").c_str());
  if (status != 0) throw std::runtime_error("the oracle " + script + " failed: " + command);
}

// 10,000 random strings need about a minute of oracles; FRUGAL_RANDOM_TEXTS asks for them.
inline int random_text_count() {
  const char* given = std::getenv("FRUGAL_RANDOM_TEXTS");
  return given ? std::max(1, static_cast<int>(std::strtol(given, nullptr, 10))) : 500;
}

// Drawn per run, printed, and repeatable with FRUGAL_SEED.
inline uint64_t seed() {
  static const uint64_t value = [] {
    const char* given = std::getenv("FRUGAL_SEED");
    const uint64_t drawn = given ? std::strtoull(given, nullptr, 10) : static_cast<uint64_t>(std::random_device{}());
    fprintf(stderr, "FRUGAL_SEED=%llu\n", static_cast<unsigned long long>(drawn));
    return drawn;
  }();
  return value;
}

inline std::string show(const std::vector<int32_t>& ids) {
  std::string text;
  for (const int32_t id : ids) text += fmt::format("{} ", id);
  return text;
}

}  // namespace frugal::text::testing
