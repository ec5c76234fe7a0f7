#include "train/run_curves.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "eval/report_text.h"

namespace frugal::train {
namespace {

using eval::format_number;
using eval::TickFormat;

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
constexpr double kMaxNumber = 1e18;  // pictures of larger ones overflow

std::string number_or_nothing(const std::optional<double>& value) { return value ? format_number(*value) : ""; }

std::string losses(const RunHistory& run) {
  const auto first = run.first_loss(), last = run.last_loss();
  return first && last ? fmt::format("{} \xE2\x86\x92 {}", format_number(*first), format_number(*last)) : "";
}

// "8,386", "1.25M", "30.1B".
std::string count(int64_t value) {
  const auto number = static_cast<double>(value);
  return number < 1e6 ? format_number(number) : number < 1e9 ? fmt::format("{:.3g}M", number / 1e6) : fmt::format("{:.3g}B", number / 1e9);
}

// The log has whole seconds.
std::string duration(const RunHistory& run) {
  const double seconds = run.seconds();
  return run.rows.empty() ? "" : seconds < 1 ? "< 1 s" : seconds < 10 ? fmt::format("{:.0f} s", seconds) : eval::format_seconds(seconds);
}

// Of a long path its end.
std::string model_name(const RunHistory& run) {
  const size_t slash = run.model.rfind('/');
  return eval::clean(run.model.size() > 32 && slash != run.model.npos ? "\xE2\x80\xA6" + run.model.substr(slash) : run.model, 40);
}

std::string lowest(const RunHistory& run) {
  const LogRow* row = run.lowest_loss();
  return row ? fmt::format("{} at {}", format_number(row->loss), row->step) : "";
}

bool is_finite(const CurvePoint& point) { return std::isfinite(point.value); }

using Get = std::function<std::optional<double>(const LogRow&)>;

void add_series(Curve& curve, const std::vector<RunHistory>& runs, const Get& get, bool held_out = false) {
  for (size_t i = 0; i < runs.size(); ++i) {
    Series series{i, held_out, {}};
    for (const LogRow& row : runs[i].rows) {
      if (const auto value = get(row)) series.points.push_back({static_cast<double>(row.step), std::abs(*value) <= kMaxNumber ? *value : kNone});
    }
    if (std::any_of(series.points.begin(), series.points.end(), is_finite)) curve.series.push_back(std::move(series));
  }
}

}  // namespace

std::vector<RunColumn> run_columns(const std::vector<RunHistory>& runs) {
  std::vector<RunColumn> columns = {
      {"run", "its folder", false, [](const RunHistory& run) { return eval::clean(run.name, 60); }},
      {"state", "running: a process trains into the folder; stopped: --resume goes on", false,
       [](const RunHistory& run) { return std::string(to_string(run.state)); }},
      {"method", "as its newest checkpoint says", false, [](const RunHistory& run) { return eval::clean(run.method, 40); }},
      {"model", "what it began with", false, model_name},
      {"steps", "done and planned", true,
       [](const RunHistory& run) { return fmt::format("{}/{}", run.steps, run.total_steps > 0 ? fmt::format("{}", run.total_steps) : "?"); }},
      {"loss", "of the first and the last step in the log", true, losses},
      {"lowest", "loss, and its step", true, lowest},
      {"held out", "loss on held-out data, the last", true, [](const RunHistory& run) { return number_or_nothing(run.eval_loss()); }},
      {"skipped", "steps that changed nothing: not finite, or a spike", true,
       [](const RunHistory& run) { return run.skipped() > 0 ? fmt::format("{}", run.skipped()) : ""; }},
      {"tokens", "learned from, with repetitions", true, [](const RunHistory& run) { return run.rows.empty() ? "" : count(run.rows.back().tokens); }},
      {"tokens/s", "the median", true, [](const RunHistory& run) { return run.rows.empty() ? "" : eval::format_rate(run.tokens_per_second()); }},
      {"MFU", "model FLOP utilisation, the median", true, [](const RunHistory& run) { return run.mfu() ? fmt::format("{:.1f} %", 100 * *run.mfu()) : ""; }},
      {"time", "of all processes that trained", true, duration},
      {"memory", "peak resident", true,
       [](const RunHistory& run) { return run.rows.empty() ? "" : eval::format_bytes(static_cast<double>(run.peak_rss_bytes())); }},
  };
  std::erase_if(
      columns, [&](const RunColumn& column) { return std::all_of(runs.begin(), runs.end(), [&](const RunHistory& run) { return column.text(run).empty(); }); });
  return columns;
}

double Curve::first_step() const {
  double first = series.front().points.front().step;
  for (const Series& one : series) first = std::min(first, one.points.front().step);
  return first;
}

double Curve::last_step() const {
  double last = 0;
  for (const Series& one : series) last = std::max(last, one.points.back().step);
  return last;
}

eval::Scale Curve::step_scale(double from, double to) const {
  const double first = first_step(), last = last_step();
  return last > first ? eval::Scale(eval::Scale::Kind::linear, first, last, from, to) : eval::Scale(eval::Scale::Kind::linear, first - 1, first + 1, from, to);
}

eval::Scale Curve::value_scale(double from, double to) const {
  std::vector<double> values;
  for (const Series& one : series) {
    for (const CurvePoint& point : one.points) {
      if (is_finite(point)) values.push_back(point.value);
    }
  }
  if (axis == ValueAxis::spread) return eval::scale_around(values, from, to);
  const auto [lowest, highest] = std::minmax_element(values.begin(), values.end());
  const double low = axis == ValueAxis::from_zero ? 0 : *lowest, air = *highest > low ? 0.05 * (*highest - low) : 0.1 * std::abs(low);
  return {eval::Scale::Kind::linear, axis == ValueAxis::from_zero ? 0 : low - air, *highest + air, from, to};
}

std::vector<eval::Tick> Curve::step_ticks(const eval::Scale& scale, double min_gap) const {
  std::vector<eval::Tick> ticks = eval::ticks_of(scale, TickFormat::rate, min_gap);
  std::erase_if(ticks, [](const eval::Tick& tick) { return tick.value != std::round(tick.value); });
  return ticks;
}

std::vector<Curve> curves_of(const std::vector<RunHistory>& runs) {
  std::vector<Curve> curves;
  const auto add = [&](const std::string& title, TickFormat format, ValueAxis axis, const Get& get) -> Curve& {
    Curve& curve = curves.emplace_back(Curve{title, format, axis, {}});
    add_series(curve, runs, get);
    return curve;
  };
  Curve& loss = add("loss", TickFormat::rate, ValueAxis::spread, [](const LogRow& row) { return std::optional(row.loss); });
  add_series(
      loss, runs, [](const LogRow& row) { return row.has_eval ? std::optional(row.eval_loss) : std::nullopt; }, true);
  add("learning rate", TickFormat::rate, ValueAxis::from_zero, [](const LogRow& row) { return std::optional(row.learning_rate); });
  add("gradient norm", TickFormat::rate, ValueAxis::spread, [](const LogRow& row) { return std::optional(row.grad_norm); });
  add("tokens a second", TickFormat::rate, ValueAxis::from_zero, [](const LogRow& row) { return std::optional(row.tokens_per_second); });
  add("model FLOP utilisation, %", TickFormat::rate, ValueAxis::from_zero,
      [](const LogRow& row) { return row.mfu ? std::optional(100 * *row.mfu) : std::nullopt; });
  add("peak memory", TickFormat::bytes, ValueAxis::from_zero, [](const LogRow& row) { return std::optional(static_cast<double>(row.peak_rss_bytes)); });
  std::set<std::string> names;
  for (const RunHistory& run : runs) {
    for (const LogRow& row : run.rows) {
      for (const auto& [name, value] : row.metrics.items()) names.insert(name);
    }
  }
  for (const std::string& name : names) {
    add(eval::clean(name, 60), TickFormat::rate, ValueAxis::around,
        [&](const LogRow& row) { return row.metrics.contains(name) ? std::optional(row.metrics[name].get<double>()) : std::nullopt; });
  }
  std::erase_if(curves, [](const Curve& curve) { return curve.series.empty(); });
  return curves;
}

std::vector<CurvePoint> thinned(const std::vector<CurvePoint>& points, size_t most) {
  if (points.size() <= most) return points;
  std::vector<CurvePoint> out;
  const size_t share = (points.size() + most - 1) / most;
  for (size_t begin = 0; begin < points.size(); begin += share) {
    const size_t end = std::min(begin + share, points.size());
    double sum = 0, count = 0;
    for (size_t i = begin; i < end; ++i) {
      if (!is_finite(points[i])) continue;
      sum += points[i].value;
      ++count;
    }
    out.push_back({(points[begin].step + points[end - 1].step) / 2, count > 0 ? sum / count : kNone});
  }
  return out;
}

}  // namespace frugal::train
