#include "cli/arguments.h"

#include <algorithm>
#include <cctype>
#include <map>

namespace frugal::cli {

std::vector<std::string> long_names(int argc, char** argv) {
  static const std::map<std::string, std::string> aliases = {
      {"-hf", "--hf-repo"}, {"-hfr", "--hf-repo"}, {"-sys", "--system-prompt"}, {"-sysf", "--system-prompt-file"}, {"-st", "--single-turn"}, {"-no-cnv", "--no-conversation"},
      {"-sp", "--special"}, {"-ub", "--ubatch-size"}, {"-pg", "--prompt-generate"},
  };
  std::vector<std::string> result;
  for (int i = 1; i < argc; ++i) {
    const std::string given = argv[i];
    const size_t equals = given.find('=');
    const std::string name = given.substr(0, equals), rest = equals == std::string::npos ? "" : given.substr(equals);
    const bool several_letters = name.size() > 2 && name[0] == '-' && std::all_of(name.begin() + 1, name.end(), [](char c) { return std::islower(static_cast<unsigned char>(c)) || c == '-'; }) && name[1] != '-';
    const auto it = aliases.find(name);
    // "-xyz" that nothing is called must not be read as -x with the value "yz".
    result.push_back(it != aliases.end() ? it->second + rest : several_letters ? "-" + given : given);
  }
  std::reverse(result.begin(), result.end());
  return result;
}

}  // namespace frugal::cli
