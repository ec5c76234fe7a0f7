// Shared by the tests of tokenizers: where the vocabularies lie, and files as JSON.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "oracle.h"
#include "text/tokenizer.h"

namespace frugal::text {

namespace fs = std::filesystem;
using namespace testing;

inline fs::path vocabulary_dir() { return shared_data() / "tokenizers"; }

inline std::string read_file(const fs::path& path) { return read_text_file(path.string(), size_t{512} << 20); }
inline Json read_json(const fs::path& path) { return parse_json(read_file(path), path.string(), {.max_bytes = size_t{512} << 20}); }

// 10,000 random strings need about a minute of oracles; FRUGAL_RANDOM_TEXTS asks for them.
inline int random_text_count() { return std::stoi(environment_or("FRUGAL_RANDOM_TEXTS", "500")); }

inline std::string show(const std::vector<int32_t>& ids) {
  std::string text;
  for (const int32_t id : ids) text += fmt::format("{} ", id);
  return text;
}

}  // namespace frugal::text
