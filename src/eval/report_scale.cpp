#include "eval/report_scale.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "eval/report_text.h"

namespace frugal::eval {
namespace {

constexpr double kLinearPart = 0.02;  // of a ratio scale, in ln(ratio)

std::string tick_label(double value, TickFormat format) {
  if (format == TickFormat::bytes) {
    const double scale = value >= 1e9 ? 1e9 : value >= 1e6 ? 1e6 : value >= 1e3 ? 1e3 : 1;
    const char* unit = value >= 1e9 ? "GB" : value >= 1e6 ? "MB" : value >= 1e3 ? "kB" : "B";
    return fmt::format("{:.4g} {}", value / scale, unit);
  }
  return value >= 1e3 ? format_number(value) : fmt::format("{:.4g}", value);
}

// Keeps ticks that are at least min_gap pixels from the kept ones before.
std::vector<Tick> spaced(const Scale& scale, const std::vector<Tick>& candidates, double min_gap) {
  std::vector<Tick> kept;
  for (const Tick& tick : candidates) {
    if (kept.empty() || std::abs(scale(tick.value) - scale(kept.back().value)) >= min_gap) kept.push_back(tick);
  }
  return kept;
}

std::vector<Tick> linear_ticks(const Scale& scale, TickFormat format, double min_gap) {
  const double span = scale.high() - scale.low();
  const double pixels = std::abs(scale(scale.high()) - scale(scale.low()));
  const double rough = span * min_gap / pixels;
  double step = std::pow(10.0, std::floor(std::log10(rough)));
  for (const double factor : {1.0, 2.0, 5.0, 10.0}) {
    if (step * factor >= rough) {
      step *= factor;
      break;
    }
  }
  std::vector<Tick> ticks;
  for (double i = std::ceil(scale.low() / step); i * step <= scale.high() && ticks.size() < 50; ++i) {
    const double value = i * step + 0.0;  // no -0
    ticks.push_back({value, tick_label(value, format)});
  }
  return ticks;
}

// 1, 2, 5 of each decade where that is dense enough, else what fits of 1, 1.5, 2, 3, 4, 5, 6, 8.
std::vector<Tick> log_ticks(const Scale& scale, TickFormat format, double min_gap) {
  std::vector<Tick> best;
  for (const auto& mantissas : {std::vector<double>{1, 2, 5}, std::vector<double>{1, 1.5, 2, 3, 4, 5, 6, 8}}) {
    std::vector<Tick> candidates;
    for (double decade = std::floor(std::log10(scale.low())); decade <= std::log10(scale.high()); ++decade) {
      for (const double mantissa : mantissas) {
        const double value = mantissa * std::pow(10.0, decade);
        if (value >= scale.low() && value <= scale.high()) candidates.push_back({value, tick_label(value, format)});
      }
    }
    best = spaced(scale, candidates, min_gap);
    if (best.size() >= 5) break;
  }
  return best;
}

}  // namespace

Scale::Scale(Kind kind, double low, double high, double from, double to) : kind_(kind), low_(low), high_(high > low ? high : low + 1), from_(from), to_(to) {}

double Scale::transform(Kind kind, double value) {
  switch (kind) {
    case Kind::linear: return value;
    case Kind::log: return std::log(value);
    case Kind::ratio: return std::asinh(value / kLinearPart);
  }
  return value;
}

double Scale::operator()(double value) const {
  const double low = transform(kind_, low_), high = transform(kind_, high_);
  return from_ + (to_ - from_) * (transform(kind_, value) - low) / (high - low);
}

Scale scale_around(const std::vector<double>& values, double from, double to) {
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  if (*low > 1e-18 && *high > 2.5 * *low) {
    const double air = std::pow(*high / *low, 0.07);
    return {Scale::Kind::log, *low / air, *high * air, from, to};
  }
  const double air = *high > *low ? 0.08 * (*high - *low) : std::max(1e-3, 0.1 * std::abs(*high));
  return {Scale::Kind::linear, *low - air, *high + air, from, to};
}

std::vector<Tick> ticks_of(const Scale& scale, TickFormat format, double min_gap) {
  if (format == TickFormat::perplexity) {
    // The axis is ln(perplexity): ticks where the perplexity itself is round.
    const Scale perplexities(Scale::Kind::log, std::exp(scale.low()), std::exp(scale.high()), scale(scale.low()), scale(scale.high()));
    std::vector<Tick> ticks = log_ticks(perplexities, format, min_gap);
    for (Tick& tick : ticks) tick.value = std::log(tick.value);
    return ticks;
  }
  return scale.kind() == Scale::Kind::log ? log_ticks(scale, format, min_gap) : linear_ticks(scale, format, min_gap);
}

std::vector<Tick> ratio_ticks(const Scale& scale, double min_gap) {
  constexpr double kRatios[] = {1, 1.01, 1.02, 1.05, 1.1, 1.2, 1.5, 2, 3, 5, 10, 20};
  std::vector<Tick> above;
  for (const double ratio : kRatios) {
    const double value = std::log(ratio);
    if (value >= scale.low() && value <= scale.high() * (1 + 1e-9)) above.push_back({value, fmt::format("\xC3\x97{:.4g}", ratio)});
  }
  std::vector<Tick> ticks = spaced(scale, above, min_gap);
  for (const double ratio : {0.99, 0.95, 0.9, 0.8, 0.5}) {
    const double value = std::log(ratio);
    if (value >= scale.low() && std::abs(scale(value) - scale(0)) >= min_gap) ticks.push_back({value, fmt::format("\xC3\x97{:.4g}", ratio)});
  }
  return ticks;
}

std::string draw_axes(const Box& area, const Scale& x, const std::vector<Tick>& x_ticks, const Scale& y, const std::vector<Tick>& y_ticks) {
  std::string out;
  for (const Tick& tick : x_ticks) {
    out += fmt::format(
        R"(<line class="grid" x1="{0:.1f}" x2="{0:.1f}" y1="{1:.1f}" y2="{2:.1f}"/><text class="tick" x="{0:.1f}" y="{3:.1f}" text-anchor="middle">{4}</text>)",
        x(tick.value), area.top, area.bottom, area.bottom + 16, tick.label);
  }
  for (const Tick& tick : y_ticks) {
    out += fmt::format(
        R"(<line class="{0}" x1="{1:.1f}" x2="{2:.1f}" y1="{3:.1f}" y2="{3:.1f}"/><text class="tick" x="{4:.1f}" y="{5:.1f}" text-anchor="end">{6}</text>)",
        y.kind() == Scale::Kind::ratio && tick.value == 0 ? "zero" : "grid", area.left, area.right, y(tick.value), area.left - 8, y(tick.value) + 4,
        tick.label);
  }
  return out + fmt::format(R"(<path class="axis" fill="none" d="M{:.1f} {:.1f}V{:.1f}H{:.1f}"/>)", area.left, area.top, area.bottom, area.right);
}

}  // namespace frugal::eval
