// Reading YAML files strictly, with messages that say where.
#pragma once

#include <yaml-cpp/yaml.h>

#include <functional>
#include <string>
#include <vector>

namespace frugal::cli {

// `read` gets the root of the file; what yaml-cpp throws in it becomes Error{invalid_input} with the path.
void read_yaml(const std::string& path, const std::function<void(const YAML::Node& root)>& read);

// The functions below throw Error{invalid_input} that begins with `where`.
void check_keys(const YAML::Node& map, const std::string& where, const std::vector<std::string>& known);  // a map, no key unknown or twice
std::string scalar(const YAML::Node& node, const std::string& where);
bool truth(const YAML::Node& node, const std::string& where);  // YAML's words for true and false

}  // namespace frugal::cli
