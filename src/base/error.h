// The one error type of the project. Bad input throws Error; assertions (FRUGAL_ASSERT) are for our own bugs;
// expected outcomes are return values. The text says: what was being read (tag), the rule that was broken, what
// was received, and, where it helps, the likely cause.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <string_view>

namespace frugal {

enum class ErrorKind { invalid_input, corrupt_file, unsupported, out_of_memory, io, internal };

std::string_view to_string(ErrorKind kind);

class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  ErrorKind kind() const { return kind_; }

 private:
  ErrorKind kind_;
};

template <typename... Args>
[[noreturn]] void fail(ErrorKind kind, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(kind, fmt::format(format, std::forward<Args>(args)...));
}

// Errors of the operating system: message, then what errno says.
[[noreturn]] void fail_errno(std::string_view what, std::string_view path);

// Text from a file or a request made safe to show: control characters and invalid UTF-8 escaped, cut at max_bytes.
std::string printable(std::string_view text, size_t max_bytes = 80);

[[noreturn]] void assertion_failed(const char* expression, const char* file, int line);

}  // namespace frugal

// Our own bug, never a check of input: throws Error{internal} in every build type.
#define FRUGAL_ASSERT(expression) (static_cast<bool>(expression) ? void(0) : ::frugal::assertion_failed(#expression, __FILE__, __LINE__))
