#include "cli/yaml.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/options.h"

namespace frugal::cli {

constexpr size_t kMaxBytes = size_t{1} << 20;

void read_yaml(const std::string& path, const std::function<void(const YAML::Node&)>& read) {
  const std::string text = read_text_file(path, kMaxBytes);
  try {
    read(YAML::Load(text));
  } catch (const YAML::Exception& error) {
    fail(ErrorKind::invalid_input, "{}: {}", path, error.what());
  }
}

void check_keys(const YAML::Node& map, const std::string& where, const std::vector<std::string>& known) {
  if (!map.IsMap()) fail(ErrorKind::invalid_input, "{}: must be a map", where);
  std::set<std::string> seen;
  for (const auto& pair : map) {
    const auto key = pair.first.as<std::string>();
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      fail(ErrorKind::invalid_input, "{}: unknown key \"{}\"{}", where, printable(key), did_you_mean(key, known));
    }
    if (!seen.insert(key).second) fail(ErrorKind::invalid_input, "{}: key {} is given twice", where, key);
  }
}

std::string scalar(const YAML::Node& node, const std::string& where) {
  if (!node.IsScalar()) fail(ErrorKind::invalid_input, "{}: must be a single value", where);
  return node.Scalar();
}

bool truth(const YAML::Node& node, const std::string& where) {
  bool value = false;
  if (!node.IsScalar() || !YAML::convert<bool>::decode(node, value)) fail(ErrorKind::invalid_input, "{}: must be true or false", where);
  return value;
}

}  // namespace frugal::cli
