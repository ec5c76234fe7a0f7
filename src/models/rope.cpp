#include "models/rope.h"

#include <charconv>
#include <cmath>
#include <numbers>
#include <optional>

#include "base/error.h"

namespace frugal::models {
namespace {

using nn::RopeScaling;
using nn::RopeSpec;

constexpr double kMaxTheta = 1e18;
constexpr double kMaxFactor = 1e6;
constexpr int64_t kMaxContext = int64_t{1} << 36;

struct ScalingName {
  RopeScaling scaling;
  std::string_view text;
};
constexpr ScalingName kScalingNames[] = {{RopeScaling::none, "default"},  {RopeScaling::linear, "linear"}, {RopeScaling::dynamic, "dynamic"},
                                         {RopeScaling::llama3, "llama3"}, {RopeScaling::yarn, "yarn"},     {RopeScaling::longrope, "longrope"}};

RopeScaling scaling_of(std::string_view text, const std::string& path) {
  for (const ScalingName& name : kScalingNames) {
    if (name.text == text) return name.scaling;
  }
  fail(ErrorKind::unsupported, "{}: rope type \"{}\" is not supported (default, linear, dynamic, llama3, yarn, longrope are)", path, printable(text));
}

std::string_view text_of(RopeScaling scaling) {
  for (const ScalingName& name : kScalingNames) {
    if (name.scaling == scaling) return name.text;
  }
  return "default";
}

// What the YaRN paper (arXiv 2309.00071, section 3.4) multiplies cos and sin with.
double yarn_mscale(double factor, double mscale = 1) { return factor <= 1 ? 1 : 0.1 * mscale * std::log(factor) + 1; }

double yarn_attention_factor(const RopeSpec& rope) {
  if (rope.attention_factor > 0) return rope.attention_factor;
  if (rope.mscale > 0 && rope.mscale_all_dim > 0) return yarn_mscale(rope.factor, rope.mscale) / yarn_mscale(rope.factor, rope.mscale_all_dim);
  return yarn_mscale(rope.factor);
}

std::vector<double> read_factors(const JsonObject& parameters, std::string_view key, int64_t count) {
  std::vector<double> factors = parameters.numbers(key);
  if (static_cast<int64_t>(factors.size()) != count) parameters.fail_at(key, fmt::format("must have {} numbers, half of head_dim", count));
  for (const double factor : factors) {
    if (!(factor > 0 && factor <= kMaxFactor)) parameters.fail_at(key, "items must be greater than 0");
  }
  return factors;
}

// The divisors of the rotary frequencies that Llama 3.1 defines: none for short wavelengths, `factor` for long ones, and a
// blend between.
std::vector<double> llama3_factors(const RopeSpec& rope) {
  const double context = static_cast<double>(rope.original_context);
  std::vector<double> factors;
  for (int64_t i = 0; i < rope.rotary_dim; i += 2) {
    const double wavelength = 2 * std::numbers::pi * std::pow(rope.theta, static_cast<double>(i) / static_cast<double>(rope.rotary_dim));
    const double share = (context / wavelength - rope.low_frequency_factor) / (rope.high_frequency_factor - rope.low_frequency_factor);
    if (wavelength < context / rope.high_frequency_factor) {
      factors.push_back(1);
    } else if (wavelength > context / rope.low_frequency_factor) {
      factors.push_back(rope.factor);
    } else {
      factors.push_back(1 / ((1 - share) / rope.factor + share));
    }
  }
  return factors;
}

bool nearly_equal(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::abs(a[i] - b[i]) > 1e-5 * std::abs(b[i])) return false;
  }
  return true;
}

// Llama 3.1 (factor 8) and 3.2 (factor 32): the only parameters that have been published.
std::optional<RopeSpec> published_llama3(RopeSpec rope, const std::vector<double>& factors) {
  rope.scaling = RopeScaling::llama3;
  rope.original_context = 8192;
  for (const double factor : {8.0, 32.0}) {
    rope.factor = factor;
    if (nearly_equal(llama3_factors(rope), factors)) return rope;
  }
  return std::nullopt;
}

void set_factors(RopeSpec& rope, std::vector<double> short_factors, std::vector<double> long_factors, double attention_factor) {
  rope.scaling = RopeScaling::longrope;
  rope.short_factors = std::move(short_factors);
  rope.long_factors = std::move(long_factors);
  rope.attention_factor = attention_factor;
}

const std::vector<double>* find_factors(const GgufDescription& description, std::string_view name, int64_t count) {
  const auto it = description.rope_factors.find(name);
  if (it == description.rope_factors.end()) return nullptr;
  if (static_cast<int64_t>(it->second.size()) != count) {
    fail(ErrorKind::corrupt_file, "{}: tensor {} has {} numbers, must have {}, half of the rotary dimensions", description.metadata.source(), name,
         it->second.size(), count);
  }
  for (const double factor : it->second) {
    if (!(factor > 0 && factor <= kMaxFactor))
      fail(ErrorKind::corrupt_file, "{}: tensor {}: {} is not a frequency factor", description.metadata.source(), name, factor);
  }
  return &it->second;
}

void read_gguf_scaling(const GgufDescription& description, const std::string& prefix, const RopeContext& context, RopeSpec& rope) {
  const Metadata& metadata = description.metadata;
  const std::string type = metadata.text_or(prefix + "rope.scaling.type", "none");
  double factor = metadata.number_or(prefix + "rope.scaling.factor", 0);
  if (factor == 0) factor = metadata.number_or(prefix + "rope.scale_linear", 0);  // before 2023-11; 0: none
  const double attention = tidy_float(metadata.number_or(prefix + "rope.scaling.attn_factor", 1));
  if (!(factor >= 0 && factor <= kMaxFactor)) metadata.fail_at(prefix + "rope.scaling.factor", fmt::format("must be in 0..{}", kMaxFactor));
  if (!(attention > 0 && attention <= kMaxFactor)) metadata.fail_at(prefix + "rope.scaling.attn_factor", "must be greater than 0");
  rope.original_context = metadata.integer_or(prefix + "rope.scaling.original_context_length", context.context_length, 1, kMaxContext);
  if (type == "yarn") {
    rope.scaling = RopeScaling::yarn;
    rope.factor = factor > 0 ? tidy_float(factor) : static_cast<double>(context.context_length) / static_cast<double>(rope.original_context);
    rope.beta_fast = tidy_float(metadata.number_or(prefix + "rope.scaling.yarn_beta_fast", 32));
    rope.beta_slow = tidy_float(metadata.number_or(prefix + "rope.scaling.yarn_beta_slow", 1));
    if (!(rope.beta_fast > 0 && rope.beta_slow > 0)) metadata.fail_at(prefix + "rope.scaling.yarn_beta_fast", "must be greater than 0");
    if (attention != 1) rope.attention_factor = attention * yarn_mscale(rope.factor);
    return;
  }
  const auto* short_factors = find_factors(description, "rope_factors_short.weight", rope.rotary_dim / 2);
  const auto* long_factors = find_factors(description, "rope_factors_long.weight", rope.rotary_dim / 2);
  const auto* factors = find_factors(description, "rope_freqs.weight", rope.rotary_dim / 2);
  if (short_factors && long_factors) {
    set_factors(rope, *short_factors, *long_factors, attention);
  } else if (factors) {
    const std::optional<RopeSpec> llama3 = published_llama3(rope, *factors);
    if (llama3) {
      rope = *llama3;
    } else {
      set_factors(rope, *factors, *factors, 1);
    }
  } else if (type == "longrope") {
    fail(ErrorKind::corrupt_file, "{}: rope.scaling.type is longrope, but tensors rope_factors_short.weight and rope_factors_long.weight are missing",
         metadata.source());
  } else if (type == "linear" || (type == "none" && factor > 1)) {
    if (factor > 0) rope.scaling = RopeScaling::linear;
    rope.factor = factor > 0 ? tidy_float(factor) : 1;
  } else if (type != "none") {
    fail(ErrorKind::unsupported, "{}: key {}rope.scaling.type: \"{}\" is not supported (none, linear, yarn, longrope are)", metadata.source(), prefix,
         printable(type));
  }
}

void write_yarn(const RopeSpec& rope, const std::string& prefix, Metadata& metadata) {
  if (!rope.truncate) fail(ErrorKind::unsupported, "GGUF cannot say truncate=false of a yarn rope");
  metadata.set(prefix + "rope.scaling.type", std::string("yarn"));
  metadata.set(prefix + "rope.scaling.factor", rope.factor);
  metadata.set(prefix + "rope.scaling.original_context_length", static_cast<uint64_t>(rope.original_context));
  if (rope.beta_fast != 32) metadata.set(prefix + "rope.scaling.yarn_beta_fast", rope.beta_fast);
  if (rope.beta_slow != 1) metadata.set(prefix + "rope.scaling.yarn_beta_slow", rope.beta_slow);
  // llama.cpp multiplies the paper's default with this key.
  const double attention = yarn_attention_factor(rope) / yarn_mscale(rope.factor);
  if (attention != 1) metadata.set(prefix + "rope.scaling.attn_factor", attention);
}

}  // namespace

double tidy_float(double value) {
  const auto narrow = static_cast<float>(value);
  if (!std::isfinite(value) || static_cast<double>(narrow) != value) return value;
  const std::string shortest = fmt::format("{}", narrow);
  double result = value;
  std::from_chars(shortest.data(), shortest.data() + shortest.size(), result);
  return result;
}

RopeSpec plain_rope(double theta, int64_t head_dim) {
  RopeSpec rope;
  rope.theta = theta;
  rope.rotary_dim = head_dim;
  return rope;
}

RopeSpec rope_from_parameters(const JsonObject& parameters, const RopeContext& context) {
  RopeSpec rope = plain_rope(parameters.number_or("rope_theta", context.default_theta, 1, kMaxTheta), context.head_dim);
  if (parameters.number_or("partial_rotary_factor", 1, 0, 1) != 1) {
    fail(ErrorKind::unsupported, "{}.partial_rotary_factor: only 1 is supported in this family", parameters.path());
  }
  rope.scaling = scaling_of(parameters.text_or("rope_type", parameters.text_or("type", "default")), parameters.path());
  if (rope.scaling == RopeScaling::none) return rope;
  const int64_t inside = parameters.integer_or("original_max_position_embeddings", context.context_length, 1, kMaxContext);
  rope.original_context = context.original_context > 0 ? context.original_context : inside;
  const double ratio = static_cast<double>(context.context_length) / static_cast<double>(rope.original_context);
  const bool derived = rope.scaling == RopeScaling::yarn || rope.scaling == RopeScaling::longrope;
  rope.factor = derived ? parameters.number_or("factor", ratio, 1e-3, kMaxFactor) : parameters.number("factor", 1e-3, kMaxFactor);
  if (parameters.has("attention_factor")) rope.attention_factor = parameters.number("attention_factor", 1e-6, kMaxFactor);
  switch (rope.scaling) {
    case RopeScaling::dynamic:
      if (rope.rotary_dim < 4) fail(ErrorKind::unsupported, "{}: dynamic scaling needs a head_dim of at least 4", parameters.path());
      rope.original_context = context.context_length;
      break;
    case RopeScaling::llama3:
      rope.low_frequency_factor = parameters.number("low_freq_factor", 1e-3, kMaxFactor);
      rope.high_frequency_factor = parameters.number("high_freq_factor", 1e-3, kMaxFactor);
      if (rope.high_frequency_factor <= rope.low_frequency_factor) parameters.fail_at("high_freq_factor", "must be greater than low_freq_factor");
      break;
    case RopeScaling::yarn:
      rope.beta_fast = parameters.number_or("beta_fast", 32, 1e-3, kMaxFactor);
      rope.beta_slow = parameters.number_or("beta_slow", 1, 1e-3, kMaxFactor);
      rope.mscale = parameters.number_or("mscale", 0, 0, kMaxFactor);
      rope.mscale_all_dim = parameters.number_or("mscale_all_dim", 0, 0, kMaxFactor);
      rope.truncate = parameters.boolean_or("truncate", true);
      if (rope.theta == 1) parameters.fail_at("rope_theta", "must be greater than 1 for yarn");
      break;
    case RopeScaling::longrope:
      rope.short_factors = read_factors(parameters, "short_factor", rope.rotary_dim / 2);
      rope.long_factors = read_factors(parameters, "long_factor", rope.rotary_dim / 2);
      if (rope.attention_factor == 0) {
        const double logarithm = std::log(static_cast<double>(rope.original_context));
        rope.attention_factor = rope.factor <= 1 || logarithm <= 0 ? 1 : std::sqrt(1 + std::log(rope.factor) / logarithm);
      }
      rope.factor = 1;  // its only use was the line above
      break;
    default: break;
  }
  return rope;
}

RopeSpec rope_from_config(const JsonObject& config, RopeContext context) {
  context.default_theta = config.number_or("rope_theta", context.default_theta, 1, kMaxTheta);
  context.original_context = config.integer_or("original_max_position_embeddings", 0, 1, kMaxContext);
  // Where both are given, the older name counts, as in transformers 5: it is what people add to a file by hand.
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (config.has(key) && !config.object(key).json().empty()) return rope_from_parameters(config.object(key), context);
  }
  return plain_rope(context.default_theta, context.head_dim);
}

void rope_to_config(const RopeSpec& rope, Json& config) {
  config["rope_theta"] = rope.theta;
  if (rope.scaling == RopeScaling::none) return;
  Json scaling = {{"rope_type", text_of(rope.scaling)}};
  if (rope.scaling != RopeScaling::longrope) scaling["factor"] = rope.factor;
  switch (rope.scaling) {
    case RopeScaling::llama3:
      scaling["low_freq_factor"] = rope.low_frequency_factor;
      scaling["high_freq_factor"] = rope.high_frequency_factor;
      break;
    case RopeScaling::yarn:
      scaling["beta_fast"] = rope.beta_fast;
      scaling["beta_slow"] = rope.beta_slow;
      if (rope.mscale > 0) scaling["mscale"] = rope.mscale;
      if (rope.mscale_all_dim > 0) scaling["mscale_all_dim"] = rope.mscale_all_dim;
      if (!rope.truncate) scaling["truncate"] = false;
      break;
    case RopeScaling::longrope:
      scaling["short_factor"] = rope.short_factors;
      scaling["long_factor"] = rope.long_factors;
      break;
    default: break;
  }
  if (rope.scaling != RopeScaling::linear && rope.scaling != RopeScaling::dynamic) {
    scaling["original_max_position_embeddings"] = rope.original_context;
    if (rope.attention_factor > 0) scaling["attention_factor"] = rope.attention_factor;
  }
  config["rope_scaling"] = std::move(scaling);
}

RopeSpec rope_from_gguf(const GgufDescription& description, const RopeContext& context) {
  const Metadata& metadata = description.metadata;
  const std::string prefix = metadata.text("general.architecture") + ".";
  const double theta = tidy_float(metadata.number_or(prefix + "rope.freq_base", context.default_theta));
  if (!(theta >= 1 && theta <= kMaxTheta)) metadata.fail_at(prefix + "rope.freq_base", fmt::format("must be in 1..{}", kMaxTheta));
  if (metadata.integer_or(prefix + "rope.dimension_count", context.head_dim, 0, kMaxContext) != context.head_dim) {
    fail(ErrorKind::unsupported, "{}: key {}rope.dimension_count: only {}, the head's dimension, is supported", metadata.source(), prefix, context.head_dim);
  }
  RopeSpec rope = plain_rope(theta, context.head_dim);
  read_gguf_scaling(description, prefix, context, rope);
  if (rope.scaling == RopeScaling::none || rope.scaling == RopeScaling::linear) rope.original_context = 0;
  return rope;
}

void rope_to_gguf(const RopeSpec& rope, GgufDescription& description) {
  Metadata& metadata = description.metadata;
  const std::string prefix = metadata.text("general.architecture") + ".";
  metadata.set(prefix + "rope.freq_base", rope.theta);
  metadata.set(prefix + "rope.dimension_count", static_cast<uint64_t>(rope.rotary_dim));
  switch (rope.scaling) {
    case RopeScaling::none: break;
    case RopeScaling::linear:
      metadata.set(prefix + "rope.scaling.type", std::string("linear"));
      metadata.set(prefix + "rope.scaling.factor", rope.factor);
      break;
    case RopeScaling::dynamic: fail(ErrorKind::unsupported, "GGUF has no words for dynamic rope scaling");
    case RopeScaling::llama3: description.rope_factors["rope_freqs.weight"] = llama3_factors(rope); break;
    case RopeScaling::yarn: write_yarn(rope, prefix, metadata); break;
    case RopeScaling::longrope:
      if (rope.short_factors == rope.long_factors && rope.attention_factor == 1) {
        description.rope_factors["rope_freqs.weight"] = rope.short_factors;
        break;
      }
      metadata.set(prefix + "rope.scaling.type", std::string("longrope"));
      metadata.set(prefix + "rope.scaling.original_context_length", static_cast<uint64_t>(rope.original_context));
      metadata.set(prefix + "rope.scaling.attn_factor", rope.attention_factor);
      description.rope_factors["rope_factors_short.weight"] = rope.short_factors;
      description.rope_factors["rope_factors_long.weight"] = rope.long_factors;
      break;
  }
}

RopeSpec canonical(const RopeSpec& rope) {
  RopeSpec result = plain_rope(rope.theta, rope.rotary_dim);
  result.scaling = rope.scaling;
  switch (rope.scaling) {
    case RopeScaling::none: break;
    case RopeScaling::linear: result.factor = rope.factor; break;
    case RopeScaling::llama3: set_factors(result, llama3_factors(rope), llama3_factors(rope), 1); break;
    case RopeScaling::longrope:
      set_factors(result, rope.short_factors, rope.long_factors, rope.attention_factor);
      if (rope.short_factors != rope.long_factors) result.original_context = rope.original_context;
      break;
    case RopeScaling::dynamic:
      result.factor = rope.factor;
      result.original_context = rope.original_context;
      break;
    case RopeScaling::yarn:
      result = rope;
      result.mscale = result.mscale_all_dim = 0;
      result.attention_factor = static_cast<float>(yarn_attention_factor(rope));
      break;
  }
  return result;
}

}  // namespace frugal::models
