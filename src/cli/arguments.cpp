#include "cli/arguments.h"

#include <algorithm>
#include <cctype>
#include <map>

namespace frugal::cli {

namespace {

// "-xyz": one dash, several letters, dashes between them perhaps.
bool is_long_name_with_one_dash(const std::string& name) {
  return name.size() > 2 && name[0] == '-' && name[1] != '-' &&
         std::all_of(name.begin() + 1, name.end(), [](unsigned char c) { return std::islower(c) || c == '-'; });
}

}  // namespace

std::vector<std::string> long_names(int argc, char** argv) {
  static const std::map<std::string, std::string> aliases = {
      {"-hf", "--hf-repo"}, {"-hfr", "--hf-repo"}, {"-sys", "--system-prompt"}, {"-sysf", "--system-prompt-file"}, {"-st", "--single-turn"}, {"-no-cnv", "--no-conversation"},
      {"-sp", "--special"}, {"-ub", "--ubatch-size"}, {"-pg", "--prompt-generate"},
  };
  std::vector<std::string> result;
  for (int i = 1; i < argc; ++i) {
    const std::string given = argv[i];
    const size_t equals = given.find('=');
    const std::string name = given.substr(0, equals);
    const auto it = aliases.find(name);
    // What nothing is called must not be read as -x with the value "yz": CLI11 refuses it with two dashes.
    result.push_back(it != aliases.end() ? it->second + given.substr(name.size()) : is_long_name_with_one_dash(name) ? "-" + given : given);
  }
  std::reverse(result.begin(), result.end());
  return result;
}

}  // namespace frugal::cli
