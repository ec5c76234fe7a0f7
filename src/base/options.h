// Options of a method or a verb as data: name, type, range, default, help. One list is the parser, the recipe schema,
// the help text and the documentation. `parse_step("gptq:bits=3,group=64")` gives an id and raw texts; Options checks
// them against the specs: an unknown name or value is Error{invalid_input} with the nearest name.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace frugal {

enum class OptionType { integer, number, boolean, text, choice };

struct OptionSpec {
  std::string name;
  OptionType type = OptionType::text;
  std::string fallback;  // default, as it would be typed
  std::string help;
  double min = 0, max = 0;           // integer and number; inclusive
  std::vector<std::string> choices;  // choice
};

// Short constructors so that a table of options reads as a table.
OptionSpec integer_option(std::string name, int64_t fallback, int64_t min, int64_t max, std::string help);
OptionSpec number_option(std::string name, double fallback, double min, double max, std::string help);
OptionSpec boolean_option(std::string name, bool fallback, std::string help);
OptionSpec choice_option(std::string name, std::string fallback, std::vector<std::string> choices, std::string help);
OptionSpec text_option(std::string name, std::string fallback, std::string help);

using RawOptions = std::vector<std::pair<std::string, std::string>>;

// Checked values: every spec has one (given or default). Cheap to copy.
class Options {
 public:
  Options() = default;
  // `owner` (a method id or verb) leads the messages.
  Options(std::string_view owner, const std::vector<OptionSpec>& specs, const RawOptions& given);

  int64_t integer(std::string_view name) const;
  double number(std::string_view name) const;
  bool boolean(std::string_view name) const;
  const std::string& text(std::string_view name) const;
  bool given(std::string_view name) const;

  // "bits=3,group=64": only what was given, in the order of the specs, so that equal chains have equal texts.
  std::string canonical() const;

 private:
  struct Value {
    std::string text;
    double number = 0;
    OptionType type = OptionType::text;
    bool given = false;
  };
  const Value& at(std::string_view name, OptionType type) const;
  std::vector<std::string> order_;
  std::map<std::string, Value, std::less<>> values_;
};

struct StepText {
  std::string id;
  RawOptions options;
};
// "id" or "id:key=value,key=value". Throws Error{invalid_input} on anything else.
StepText parse_step(std::string_view text);

// Strict numbers: the whole text, no spaces, no locale, finite. Throw Error{invalid_input}.
int64_t parse_integer(std::string_view text, std::string_view what);
double parse_number(std::string_view text, std::string_view what);

// ", did you mean \"x\"?" for the candidate at the smallest edit distance (at most a third of the length), else "".
std::string did_you_mean(std::string_view name, const std::vector<std::string>& candidates);

}  // namespace frugal
