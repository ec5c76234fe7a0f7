#include "cli/recipe.h"

#include <set>

#include "base/error.h"
#include "base/options.h"
#include "cli/yaml.h"

namespace frugal::cli {
namespace {

int64_t integer(const YAML::Node& node, const std::string& where, int64_t min, int64_t max) {
  const int64_t value = parse_integer(scalar(node, where), where);
  if (value < min || value > max) fail(ErrorKind::invalid_input, "{}: must be in {}..{}, is {}", where, min, max, value);
  return value;
}

// "gptq:bits=4" or {gptq: {bits: 4}}.
std::string step_text(const YAML::Node& node, const std::string& where) {
  if (node.IsScalar()) return node.Scalar();
  if (!node.IsMap() || node.size() != 1) fail(ErrorKind::invalid_input, "{}: a step is text or a map of one method to its options", where);
  std::string text = node.begin()->first.as<std::string>();
  const YAML::Node options = node.begin()->second;
  if (options.IsNull()) return text;
  if (!options.IsMap()) fail(ErrorKind::invalid_input, "{}: the options of {} must be a map", where, text);
  char separator = ':';
  for (const auto& pair : options) {
    text += fmt::format("{}{}={}", separator, pair.first.as<std::string>(), scalar(pair.second, where));
    separator = ',';
  }
  return text;
}

std::vector<std::string> steps_of(const YAML::Node& node, const std::string& where) {
  if (!node || !node.IsSequence() || node.size() == 0) fail(ErrorKind::invalid_input, "{}: steps must be a list with at least one step", where);
  std::vector<std::string> steps;
  for (const auto& step : node) steps.push_back(step_text(step, where));
  return steps;
}

RecipeChain named_chain(std::string name, std::vector<std::string> steps) {
  if (name.empty()) name = fmt::format("{}", fmt::join(steps, " + "));
  return {std::move(name), std::move(steps)};
}

Recipe parse(const YAML::Node& root, const std::string& path) {
  check_keys(root, path, {"calibration", "evaluation", "steps", "chains"});
  Recipe recipe;
  if (const YAML::Node node = root["calibration"]) {
    const std::string where = path + ": calibration";
    check_keys(node, where, {"file", "sequences", "length", "sample_sequences"});
    if (node["file"]) recipe.calibration_file = scalar(node["file"], where);
    if (node["sequences"]) recipe.calibration.sequences = integer(node["sequences"], where + ".sequences", 1, 1 << 20);
    if (node["length"]) recipe.calibration.sequence_length = integer(node["length"], where + ".length", 8, 1 << 20);
    if (node["sample_sequences"]) recipe.calibration.sample_sequences = integer(node["sample_sequences"], where + ".sample_sequences", 1, 1 << 10);
  }
  if (const YAML::Node node = root["evaluation"]) {
    const std::string where = path + ": evaluation";
    check_keys(node, where, {"file", "ctx", "chunks"});
    if (node["file"]) recipe.evaluation_file = scalar(node["file"], where);
    if (node["ctx"]) recipe.ctx = integer(node["ctx"], where + ".ctx", 8, 1 << 20);
    if (node["chunks"]) recipe.chunks = integer(node["chunks"], where + ".chunks", 0, int64_t{1} << 40);
  }
  if (static_cast<bool>(root["steps"]) == static_cast<bool>(root["chains"])) {
    fail(ErrorKind::invalid_input, "{}: must have either steps or chains", path);
  }
  if (root["steps"]) {
    recipe.chains.push_back(named_chain("", steps_of(root["steps"], path)));
    return recipe;
  }
  if (!root["chains"].IsSequence()) fail(ErrorKind::invalid_input, "{}: chains must be a list", path);
  std::set<std::string> names;
  for (const auto& node : root["chains"]) {
    const std::string where = fmt::format("{}: chain {}", path, recipe.chains.size() + 1);
    check_keys(node, where, {"name", "steps"});
    recipe.chains.push_back(named_chain(node["name"] ? scalar(node["name"], where) : "", steps_of(node["steps"], where)));
    if (!names.insert(recipe.chains.back().name).second) fail(ErrorKind::invalid_input, "{}: the name {} is used twice", where, recipe.chains.back().name);
  }
  if (recipe.chains.empty()) fail(ErrorKind::invalid_input, "{}: no chains", path);
  return recipe;
}

}  // namespace

Recipe read_recipe(const std::string& path) {
  Recipe recipe;
  read_yaml(path, [&](const YAML::Node& root) { recipe = parse(root, path); });
  return recipe;
}

}  // namespace frugal::cli
