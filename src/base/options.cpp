#include "base/options.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/error.h"

namespace frugal {
namespace {

std::string_view type_name(OptionType type) {
  switch (type) {
    case OptionType::integer: return "an integer";
    case OptionType::number: return "a number";
    case OptionType::boolean: return "true or false";
    case OptionType::text: return "text";
    case OptionType::choice: return "one of its choices";
  }
  return "";
}

std::string number_text(double value) { return fmt::format("{}", value); }

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1])});
      diagonal = above;
    }
  }
  return row[b.size()];
}

}  // namespace

OptionSpec integer_option(std::string name, int64_t fallback, int64_t min, int64_t max, std::string help) {
  return {std::move(name), OptionType::integer, std::to_string(fallback), std::move(help), static_cast<double>(min), static_cast<double>(max), {}};
}
OptionSpec number_option(std::string name, double fallback, double min, double max, std::string help) {
  return {std::move(name), OptionType::number, number_text(fallback), std::move(help), min, max, {}};
}
OptionSpec boolean_option(std::string name, bool fallback, std::string help) {
  return {std::move(name), OptionType::boolean, fallback ? "true" : "false", std::move(help), 0, 0, {}};
}
OptionSpec choice_option(std::string name, std::string fallback, std::vector<std::string> choices, std::string help) {
  return {std::move(name), OptionType::choice, std::move(fallback), std::move(help), 0, 0, std::move(choices)};
}
OptionSpec text_option(std::string name, std::string fallback, std::string help) {
  return {std::move(name), OptionType::text, std::move(fallback), std::move(help), 0, 0, {}};
}

Options::Options(std::string_view owner, const std::vector<OptionSpec>& specs, const RawOptions& given) {
  std::vector<std::string> names;
  for (const OptionSpec& spec : specs) names.push_back(spec.name);
  for (const auto& [name, text] : given) {
    if (std::find(names.begin(), names.end(), name) == names.end()) {
      fail(ErrorKind::invalid_input, "{} has no option \"{}\"{}", owner, printable(name), did_you_mean(name, names));
    }
    if (std::count_if(given.begin(), given.end(), [&name = name](const auto& other) { return other.first == name; }) > 1) {
      fail(ErrorKind::invalid_input, "{}: option {} is given twice", owner, name);
    }
  }
  for (const OptionSpec& spec : specs) {
    const auto it = std::find_if(given.begin(), given.end(), [&](const auto& pair) { return pair.first == spec.name; });
    Value value{it == given.end() ? spec.fallback : it->second, 0, spec.type, it != given.end()};
    const std::string what = fmt::format("{}: option {}", owner, spec.name);
    switch (spec.type) {
      case OptionType::integer: value.number = static_cast<double>(parse_integer(value.text, what)); break;
      case OptionType::number: value.number = parse_number(value.text, what); break;
      case OptionType::boolean: {
        const bool yes = value.text == "true" || value.text == "1" || value.text == "on" || value.text == "yes";
        const bool no = value.text == "false" || value.text == "0" || value.text == "off" || value.text == "no";
        if (!yes && !no) fail(ErrorKind::invalid_input, "{} must be true or false, is \"{}\"", what, printable(value.text));
        value.number = yes;
        value.text = yes ? "true" : "false";
        break;
      }
      case OptionType::choice:
        if (std::find(spec.choices.begin(), spec.choices.end(), value.text) == spec.choices.end()) {
          fail(ErrorKind::invalid_input, "{} must be one of {}, is \"{}\"{}", what, fmt::join(spec.choices, ", "), printable(value.text),
               did_you_mean(value.text, spec.choices));
        }
        break;
      case OptionType::text: break;
    }
    const bool ranged = spec.type == OptionType::integer || spec.type == OptionType::number;
    if (ranged && !(value.number >= spec.min && value.number <= spec.max)) {
      fail(ErrorKind::invalid_input, "{} must be in {}..{}, is {}", what, number_text(spec.min), number_text(spec.max), value.text);
    }
    order_.push_back(spec.name);
    values_.emplace(spec.name, std::move(value));
  }
}

const Options::Value& Options::at(std::string_view name, OptionType type) const {
  const auto it = values_.find(name);
  if (it == values_.end() || it->second.type != type) {
    fail(ErrorKind::internal, "no option {} of type {}", name, type_name(type));
  }
  return it->second;
}

int64_t Options::integer(std::string_view name) const { return static_cast<int64_t>(at(name, OptionType::integer).number); }
double Options::number(std::string_view name) const { return at(name, OptionType::number).number; }
bool Options::boolean(std::string_view name) const { return at(name, OptionType::boolean).number != 0; }

const std::string& Options::text(std::string_view name) const {
  const auto it = values_.find(name);
  if (it == values_.end()) fail(ErrorKind::internal, "no option {}", name);
  return it->second.text;
}

bool Options::given(std::string_view name) const {
  const auto it = values_.find(name);
  return it != values_.end() && it->second.given;
}

std::string Options::canonical() const {
  std::string out;
  for (const std::string& name : order_) {
    const Value& value = values_.find(name)->second;
    if (value.given) out += fmt::format("{}{}={}", out.empty() ? "" : ",", name, value.text);
  }
  return out;
}

StepText parse_step(std::string_view text) {
  StepText step;
  const size_t colon = text.find(':');
  step.id = text.substr(0, colon);
  if (step.id.empty()) fail(ErrorKind::invalid_input, "a step is written id:key=value,key=value, got \"{}\"", printable(text));
  if (colon == std::string_view::npos) return step;
  std::string_view rest = text.substr(colon + 1);
  while (true) {
    const size_t comma = rest.find(',');
    const std::string_view pair = rest.substr(0, comma);
    const size_t equals = pair.find('=');
    if (equals == std::string_view::npos || equals == 0) {
      fail(ErrorKind::invalid_input, "step {}: expected key=value, got \"{}\"", step.id, printable(pair));
    }
    step.options.emplace_back(pair.substr(0, equals), pair.substr(equals + 1));
    if (comma == std::string_view::npos) return step;
    rest.remove_prefix(comma + 1);
  }
}

int64_t parse_integer(std::string_view text, std::string_view what) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    fail(ErrorKind::invalid_input, "{} must be an integer, is \"{}\"", what, printable(text));
  }
  return value;
}

double parse_number(std::string_view text, std::string_view what) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) {
    fail(ErrorKind::invalid_input, "{} must be a finite number, is \"{}\"", what, printable(text));
  }
  return value;
}

std::string did_you_mean(std::string_view name, const std::vector<std::string>& candidates) {
  if (name.size() > 64) return "";
  const std::string* best = nullptr;
  size_t best_distance = std::max<size_t>(1, name.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    const size_t distance = edit_distance(name, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = &candidate;
    }
  }
  return best ? fmt::format(", did you mean \"{}\"?", *best) : "";
}

}  // namespace frugal
