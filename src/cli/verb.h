// The options of a verb, bound to plain variables. Only verb.cpp and main.cpp include CLI11, whose templates take 20 s to
// compile.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace frugal::cli {

// Names are written as CLI11 takes them: "-n,--predict", or "model" for a positional. Defaults are the variables' values.
// The variables must live until the command line is parsed.
class Verb {
 public:
  explicit Verb(CLI::App* app) : app_(app) {}
  Verb& text(const std::string& names, std::string& value, const std::string& help);
  Verb& texts(const std::string& names, std::vector<std::string>& values, const std::string& help);  // repeatable
  Verb& integer(const std::string& names, int64_t& value, int64_t min, int64_t max, const std::string& help);
  Verb& integers(const std::string& names, std::vector<int32_t>& values, const std::string& help);  // "1,2,3"
  Verb& number(const std::string& names, double& value, double min, double max, const std::string& help);
  Verb& choice(const std::string& names, std::string& value, const std::vector<std::string>& choices, const std::string& help);
  Verb& flag(const std::string& names, bool& value, const std::string& help);
  // Each time the option is given.
  Verb& each(const std::string& names, std::function<void(const std::string&)> use, const std::string& help);
  Verb& flag_each(const std::string& names, std::function<void()> use, const std::string& help);
  Verb& required();  // the option added last

 private:
  CLI::App* app_;
  CLI::Option* last_ = nullptr;
};

}  // namespace frugal::cli
