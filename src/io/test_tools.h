// What the tests of this folder share: raw bytes, and how an action ended.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "base/error.h"
#include "oracle.h"

namespace frugal::io {

using testing::run_oracle;
using testing::shared_data_is_there;
using testing::TemporaryFolder;

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
