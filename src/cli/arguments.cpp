#include "cli/arguments.h"

#include <algorithm>
#include <map>

namespace frugal::cli {

std::vector<std::string> long_names(int argc, char** argv) {
  static const std::map<std::string, std::string> aliases = {
      {"-hf", "--hf-repo"}, {"-hfr", "--hf-repo"}, {"-sys", "--system-prompt"}, {"-sysf", "--system-prompt-file"}, {"-st", "--single-turn"}, {"-no-cnv", "--no-conversation"},
      {"-sp", "--special"}, {"-ub", "--ubatch-size"}, {"-pg", "--prompt-generate"},
  };
  std::vector<std::string> result;
  for (int i = 1; i < argc; ++i) {
    const auto it = aliases.find(argv[i]);
    result.push_back(it == aliases.end() ? argv[i] : it->second);
  }
  std::reverse(result.begin(), result.end());
  return result;
}

}  // namespace frugal::cli
