#include "base/error.h"

#include <cerrno>
#include <cstring>

namespace frugal {

std::string_view to_string(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::invalid_input: return "invalid input";
    case ErrorKind::corrupt_file: return "corrupt file";
    case ErrorKind::unsupported: return "unsupported";
    case ErrorKind::out_of_memory: return "out of memory";
    case ErrorKind::io: return "i/o error";
    case ErrorKind::internal: return "internal error";
  }
  return "unknown";
}

void fail_errno(std::string_view what, std::string_view path) {
  const int code = errno;
  fail(code == ENOMEM ? ErrorKind::out_of_memory : ErrorKind::io, "{}: {}: {}", path, what, std::strerror(code));
}

std::string printable(std::string_view text, size_t max_bytes) {
  std::string out;
  for (const char c : text.substr(0, max_bytes)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte >= 0x7f) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += c;
    }
  }
  if (text.size() > max_bytes) out += fmt::format("... ({} bytes)", text.size());
  return out;
}

void assertion_failed(const char* expression, const char* file, int line) {
  fail(ErrorKind::internal, "{}:{}: assertion failed: {} (a bug in frugal, please report it)", file, line, expression);
}

}  // namespace frugal
