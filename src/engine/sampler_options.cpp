#include <algorithm>
#include <array>
#include <limits>
#include <random>

#include "base/error.h"
#include "engine/sampler.h"

namespace frugal::engine {
namespace {

constexpr size_t kMaxBiases = 1024;

constexpr std::array<std::pair<std::string_view, SamplerKind>, 9> kNames = {{{"penalties", SamplerKind::penalties},
                                                                             {"dry", SamplerKind::dry},
                                                                             {"top_n_sigma", SamplerKind::top_n_sigma},
                                                                             {"top_k", SamplerKind::top_k},
                                                                             {"typ_p", SamplerKind::typical_p},
                                                                             {"top_p", SamplerKind::top_p},
                                                                             {"min_p", SamplerKind::min_p},
                                                                             {"xtc", SamplerKind::xtc},
                                                                             {"temperature", SamplerKind::temperature}}};

// The pieces between any of `separators`; none for an empty text.
std::vector<std::string_view> pieces(std::string_view text, std::string_view separators) {
  std::vector<std::string_view> out;
  while (!text.empty()) {
    const size_t end = std::min(text.find_first_of(separators), text.size());
    out.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out;
}

}  // namespace

std::vector<SamplerKind> parse_samplers(std::string_view text) {
  std::vector<SamplerKind> out;
  for (const std::string_view piece : pieces(text, ";,")) {
    std::string name(piece);
    std::replace(name.begin(), name.end(), '-', '_');
    if (name == "typical_p") name = "typ_p";
    if (name == "temp") name = "temperature";
    const auto found = std::find_if(kNames.begin(), kNames.end(), [&](const auto& row) { return row.first == name; });
    if (found == kNames.end()) {
      std::vector<std::string> names;
      for (const auto& row : kNames) names.emplace_back(row.first);
      fail(ErrorKind::invalid_input, "samplers: there is no sampler \"{}\"{}", printable(piece), did_you_mean(name, names));
    }
    if (std::find(out.begin(), out.end(), found->second) != out.end()) fail(ErrorKind::invalid_input, "samplers: \"{}\" is named twice", name);
    out.push_back(found->second);
  }
  return out;
}

std::vector<std::pair<int32_t, float>> parse_logit_bias(std::string_view text) {
  std::vector<std::pair<int32_t, float>> out;
  for (const std::string_view piece : pieces(text, ",")) {
    const size_t sign = piece.find_first_of("+-=", 1);
    if (piece.empty() || sign == std::string_view::npos) fail(ErrorKind::invalid_input, "logit-bias: \"{}\" is not ID+BIAS", printable(piece));
    const int64_t id = parse_integer(piece.substr(0, sign), "logit-bias: token id");
    if (id < 0 || id > std::numeric_limits<int32_t>::max()) fail(ErrorKind::invalid_input, "logit-bias: token id {} is out of range", id);
    const std::string_view bias = piece.substr(piece[sign] == '-' ? sign : sign + 1);
    const double value = bias == "-inf" ? -std::numeric_limits<double>::infinity() : parse_number(bias, "logit-bias: bias");
    if (bias != "-inf" && (value < -100 || value > 100)) fail(ErrorKind::invalid_input, "logit-bias: {} is outside -100..100", value);
    out.emplace_back(static_cast<int32_t>(id), static_cast<float>(value));
    if (out.size() > kMaxBiases) fail(ErrorKind::invalid_input, "logit-bias: more than {} entries", kMaxBiases);
  }
  return out;
}

const std::vector<OptionSpec>& sampling_options() {
  constexpr int64_t kMaxInt = std::numeric_limits<int32_t>::max(), kMaxSeed = int64_t{1} << 53, kMaxHistory = 1 << 24;
  constexpr double kTiny = 1e-6;
  static const std::vector<OptionSpec> options = {
      integer_option("seed", -1, -1, kMaxSeed, "Seed of the draws; -1: random"),
      number_option("temp", 1, 0, 2, "Temperature; 0: always the most likely token"),
      integer_option("top-k", 0, -1, kMaxInt, "Keep the k most likely tokens; 0 or -1: off"),
      number_option("top-p", 1, kTiny, 1, "Keep the most likely tokens up to this probability in sum; 1: off"),
      number_option("min-p", 0, 0, 1, "Keep tokens at least this likely relative to the most likely; 0: off"),
      number_option("typical-p", 1, kTiny, 1, "Keep the tokens of most typical surprise up to this probability; 1: off"),
      number_option("top-n-sigma", -1, -1, 100, "Keep logits within n standard deviations of the largest; -1: off"),
      number_option("xtc-probability", 0, 0, 1, "Chance to drop all likely tokens but the least likely of them; 0: off"),
      number_option("xtc-threshold", 0.1, 0, 1, "Probability from which xtc counts a token as likely; above 0.5: off"),
      number_option("dynatemp-range", 0, 0, 2, "The temperature moves by this much with the entropy; 0: off"),
      number_option("dynatemp-exp", 1, 0, 10, "Exponent from normalized entropy to temperature"),
      integer_option("repeat-last-n", 64, -1, kMaxHistory, "Tokens that the penalties look back on; 0: off, -1: all"),
      number_option("repeat-penalty", 1, 0.01, 10, "Divides positive and multiplies negative logits of repeated tokens; 1: off"),
      number_option("presence-penalty", 0, -2, 2, "Subtracted from the logit of every repeated token"),
      number_option("frequency-penalty", 0, -2, 2, "Subtracted once for each time that the token occurred"),
      number_option("dry-multiplier", 0, 0, 100, "Strength of the penalty on repeated sequences (DRY); 0: off"),
      number_option("dry-base", 1.75, 1, 10, "Growth of that penalty with the length of the sequence"),
      integer_option("dry-allowed-length", 2, 0, 1024, "Longest repetition that costs nothing more than the multiplier"),
      integer_option("dry-penalty-last-n", -1, -1, kMaxHistory, "Tokens that DRY looks back on; 0: off, -1: all"),
      integer_option("mirostat", 0, 0, 2, "Hold the surprise near mirostat-ent by version 1 or 2, in place of the truncations; 0: off"),
      number_option("mirostat-lr", 0.1, 0, 1, "Learning rate of mirostat (eta)"),
      number_option("mirostat-ent", 5, 0, 100, "Target surprise of mirostat, bits (tau)"),
      text_option("logit-bias", "", "Token ids and what is added to their logits: 15043+1,2-0.5,7-inf"),
      boolean_option("ignore-eos", false, "Never end by itself"),
      text_option("samplers", "penalties;dry;top_n_sigma;top_k;typ_p;top_p;min_p;xtc;temperature", "The chain, in its order"),
  };
  return options;
}

SamplingParams sampling_params(const Options& options) {
  const auto number = [&](std::string_view name) { return static_cast<float>(options.number(name)); };
  const auto integer = [&](std::string_view name) { return static_cast<int32_t>(options.integer(name)); };
  SamplingParams params;
  params.seed = options.integer("seed");
  params.samplers = parse_samplers(options.text("samplers"));
  params.temp = number("temp");
  params.dynatemp_range = number("dynatemp-range");
  params.dynatemp_exp = number("dynatemp-exp");
  params.top_k = integer("top-k");
  params.top_p = number("top-p");
  params.min_p = number("min-p");
  params.typical_p = number("typical-p");
  params.top_n_sigma = number("top-n-sigma");
  params.xtc_probability = number("xtc-probability");
  params.xtc_threshold = number("xtc-threshold");
  params.repeat_last_n = integer("repeat-last-n");
  params.repeat_penalty = number("repeat-penalty");
  params.presence_penalty = number("presence-penalty");
  params.frequency_penalty = number("frequency-penalty");
  params.dry_multiplier = number("dry-multiplier");
  params.dry_base = number("dry-base");
  params.dry_allowed_length = integer("dry-allowed-length");
  params.dry_penalty_last_n = integer("dry-penalty-last-n");
  params.mirostat = integer("mirostat");
  params.mirostat_lr = number("mirostat-lr");
  params.mirostat_ent = number("mirostat-ent");
  params.logit_bias = parse_logit_bias(options.text("logit-bias"));
  params.ignore_eos = options.boolean("ignore-eos");
  return params;
}

uint64_t resolved_seed(int64_t seed) {
  if (seed >= 0) return static_cast<uint64_t>(seed);
  std::random_device device;
  return (static_cast<uint64_t>(device()) << 32) ^ device();
}

}  // namespace frugal::engine
