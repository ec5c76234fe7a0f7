#include "cli/arguments.h"

#include <algorithm>
#include <cctype>
#include <map>

#include "base/error.h"
#include "base/options.h"

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
      {"-hf", "--hf-repo"},        {"-hfr", "--hf-repo"},
      {"-sys", "--system-prompt"}, {"-sysf", "--system-prompt-file"},
      {"-st", "--single-turn"},    {"-no-cnv", "--no-conversation"},
      {"-cnv", "--conversation"},  {"-sp", "--special"},
      {"-ub", "--ubatch-size"},    {"-pg", "--prompt-generate"},
      {"-npl", "--n-parallel"},    {"-ctk", "--cache-type-k"},
      {"-ctv", "--cache-type-v"},  {"-hff", "--hf-file"},
      {"-hft", "--hf-token"},      {"-np", "--parallel"},
  };
  std::vector<std::string> result;
  for (int i = 1; i < argc; ++i) {
    const std::string given = argv[i];
    const size_t equals = given.find('=');
    const std::string name = given.substr(0, equals);
    const auto it = aliases.find(name);
    // What nothing is called must not be read as -x with the value "yz": CLI11 refuses it with two dashes.
    result.push_back(it != aliases.end() ? it->second + given.substr(name.size()) : is_long_name_with_one_dash(name) ? given.substr(0, 1) + given : given);
  }
  std::reverse(result.begin(), result.end());
  return result;
}

std::vector<int64_t> number_list(const std::string& text, const std::string& what, int64_t max) {
  std::vector<int64_t> result;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t comma = std::min(text.find(',', begin), text.size());
    const std::string item = text.substr(begin, comma - begin);
    const size_t dash = item.find('-'), step = item.find_first_of("+*");
    if (dash == std::string::npos) {
      result.push_back(parse_integer(item, what));
    } else {
      const int64_t first = parse_integer(item.substr(0, dash), what);
      const int64_t last = parse_integer(item.substr(dash + 1, step == std::string::npos ? step : step - dash - 1), what);
      const bool multiply = step != std::string::npos && item[step] == '*';
      const int64_t by = step == std::string::npos ? 1 : parse_integer(item.substr(step + 1), what);
      if (by < (multiply ? 2 : 1) || first < (multiply ? 1 : 0) || last - first > 1'000'000)
        fail(ErrorKind::invalid_input, "{}: bad range \"{}\"", what, printable(item));
      for (int64_t value = first; value <= last; value = multiply ? value * by : value + by) result.push_back(value);
    }
    begin = comma + 1;
  }
  for (const int64_t value : result) {
    if (value < 0 || value > max) fail(ErrorKind::invalid_input, "{} must be in 0..{}, is {}", what, max, value);
  }
  return result;
}

}  // namespace frugal::cli
