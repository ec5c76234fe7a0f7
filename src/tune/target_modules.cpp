#include "tune/target_modules.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include "base/error.h"
#include "base/options.h"
#include "nn/sharing.h"

namespace frugal::tune {
namespace {

constexpr std::string_view kHead = "lm_head";

// Python's re.fullmatch; names are single lines.
text::Pattern whole(const std::string& regex, const std::string& source) { return text::Pattern("^(?:" + regex + ")$", source, /*trusted=*/false); }

bool matches(const text::Pattern& pattern, std::string_view name) {
  std::vector<text::Range> found;
  pattern.find_all(name, 0, found, 1);
  return !found.empty();
}

std::string last_part(std::string_view name) { return std::string(name.substr(name.rfind('.') + 1)); }

}  // namespace

TargetModules::Selection::Selection(const io::ModuleSelection& selection, const std::string& source)
    : names(selection.names.begin(), selection.names.end()), all_linear(selection.all_linear) {
  if (!selection.regex.empty()) regex = std::make_unique<text::Pattern>(whole(selection.regex, source));
}

bool TargetModules::Selection::holds(std::string_view name) const {
  if (all_linear) return name != kHead;
  if (regex) return matches(*regex, name);
  for (std::string_view rest = name;; rest.remove_prefix(rest.find('.') + 1)) {
    if (names.contains(rest)) return true;
    if (rest.find('.') == rest.npos) return false;
  }
}

TargetModules::TargetModules(const io::PeftConfig& config, const std::string& source)
    : source_(source),
      target_(config.target_modules, source + ".target_modules"),
      exclude_(config.exclude_modules, source + ".exclude_modules"),
      feedforward_(config.feedforward_modules, source + ".feedforward_modules"),
      layers_(config.layers_to_transform.begin(), config.layers_to_transform.end()),
      layers_pattern_(config.layers_pattern),
      rank_(config.rank),
      alpha_(config.alpha),
      rslora_(config.rslora) {
  for (const auto& [regex, rank] : config.rank_pattern) ranks_.emplace_back(whole("(?:.*\\.)?(?:" + regex + ")", source + ".rank_pattern"), rank);
  for (const auto& [regex, alpha] : config.alpha_pattern) alphas_.emplace_back(whole("(?:.*\\.)?(?:" + regex + ")", source + ".alpha_pattern"), alpha);
}

// The first number among the name's parts after the second, or after the module that layers_pattern names.
bool TargetModules::in_chosen_layer(std::string_view name) const {
  std::vector<std::string_view> parts;
  for (size_t begin = 0; begin <= name.size();) {
    const size_t end = std::min(name.find('.', begin), name.size());
    parts.push_back(name.substr(begin, end - begin));
    begin = end + 1;
  }
  for (size_t i = layers_pattern_.empty() ? 2 : 1; i + 1 < parts.size(); ++i) {
    int64_t number = -1;
    const auto [end, code] = std::from_chars(parts[i].data(), parts[i].data() + parts[i].size(), number);
    if (code != std::errc() || end != parts[i].data() + parts[i].size() || number < 0) continue;
    if (layers_pattern_.empty() || std::ranges::find(layers_pattern_, parts[i - 1]) != layers_pattern_.end()) return layers_.contains(number);
  }
  return false;
}

bool TargetModules::selects(std::string_view name) const {
  if (exclude_.holds(name) || !target_.holds(name)) return false;
  return layers_.empty() || target_.names.contains(name) || in_chosen_layer(name);
}

std::vector<nn::Linear*> TargetModules::find(nn::Model& model) const {
  std::vector<nn::Linear*> found;
  std::set<std::string> parts;
  for (nn::Linear* linear : all_linears(model)) {
    if (selects(linear->name())) found.push_back(linear);
    parts.insert(last_part(linear->name()));
  }
  if (found.empty()) fail(ErrorKind::invalid_input, "{}.target_modules: names none of the model's modules, which end in {}", source_, fmt::join(parts, ", "));
  return found;
}

std::vector<std::string> TargetModules::unknown(nn::Model& model) const {
  std::set<std::string, std::less<>> left = target_.names;
  for (nn::Linear* linear : all_linears(model)) {
    for (std::string_view rest = linear->name();; rest.remove_prefix(rest.find('.') + 1)) {
      if (const auto it = left.find(rest); it != left.end()) left.erase(it);
      if (rest.find('.') == rest.npos) break;
    }
  }
  return {left.begin(), left.end()};
}

bool TargetModules::scales_input(std::string_view name) const { return feedforward_.holds(name); }

int64_t TargetModules::rank(std::string_view name) const {
  for (const auto& [pattern, rank] : ranks_) {
    if (matches(pattern, name)) return rank;
  }
  return rank_;
}

double TargetModules::scale(std::string_view name) const {
  double alpha = alpha_;
  for (const auto& [pattern, value] : alphas_) {
    if (!matches(pattern, name)) continue;
    alpha = value;
    break;
  }
  const auto rank = static_cast<double>(this->rank(name));
  return alpha / (rslora_ ? std::sqrt(rank) : rank);
}

std::vector<nn::Linear*> all_linears(nn::Model& model) {
  if (nn::sharing_of(model.spec).any()) {
    fail(ErrorKind::unsupported, "adapter: a {}'s blocks share weights, beside which an adapter of one block would be another's too: train it whole",
         model.spec.family);
  }
  std::vector<nn::Linear*> linears;
  for (nn::Block& block : model.blocks) {
    for (nn::Linear* linear : block.linears()) linears.push_back(linear);
  }
  linears.push_back(&model.head);
  return linears;
}

}  // namespace frugal::tune
