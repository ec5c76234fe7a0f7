#include "nn/loader.h"

#include <algorithm>
#include <cctype>

#include "base/error.h"

namespace frugal::nn {

SaveFormat target_format(SaveFormat format, const std::string& path) {
  std::string end = path.substr(path.size() - std::min<size_t>(path.size(), 5));
  std::transform(end.begin(), end.end(), end.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  const bool named_gguf = end == ".gguf";
  if (named_gguf && (format == SaveFormat::huggingface || format == SaveFormat::frugal)) {
    fail(ErrorKind::invalid_input, "{}: a directory is wanted, and the name is that of a GGUF file", path);
  }
  return format == SaveFormat::automatic && named_gguf ? SaveFormat::gguf : format;
}

}  // namespace frugal::nn
