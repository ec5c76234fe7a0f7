#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "eval/report_text.h"
#include "train/run_curves.h"
#include "train/run_report.h"

namespace frugal::train {
namespace {

constexpr int kRows = 12;
constexpr size_t kLetters = 26;

// Characters of a chart, [row][column], from the top left.
class Canvas {
 public:
  Canvas(int rows, int columns) : cells_(static_cast<size_t>(rows), std::vector<std::string>(static_cast<size_t>(columns), " ")) {}
  std::string& at(int row, int column) { return cells_[static_cast<size_t>(row)][static_cast<size_t>(column)]; }
  std::string line(int row) const { return fmt::format("{}", fmt::join(cells_[static_cast<size_t>(row)], "")); }

 private:
  std::vector<std::vector<std::string>> cells_;
};

// The row of each column, -1 in a gap; between points a straight line.
std::vector<int> rows_of(const std::vector<CurvePoint>& points, const eval::Scale& x, const eval::Scale& y, int columns) {
  std::vector<int> rows(static_cast<size_t>(columns), -1);
  const auto column = [&](const CurvePoint& point) { return std::clamp(static_cast<int>(std::lround(x(point.step))), 0, columns - 1); };
  const auto row = [&](double value) { return std::clamp(static_cast<int>(std::lround(y(value))), 0, kRows - 1); };
  for (size_t i = 0; i < points.size(); ++i) {
    if (!std::isfinite(points[i].value)) continue;
    const int here = column(points[i]);
    rows[static_cast<size_t>(here)] = row(points[i].value);
    if (i == 0 || !std::isfinite(points[i - 1].value)) continue;
    const int before = column(points[i - 1]);
    for (int c = before + 1; c < here; ++c) {
      const double share = static_cast<double>(c - before) / (here - before);
      rows[static_cast<size_t>(c)] = static_cast<int>(std::lround(y(points[i - 1].value) + share * (y(points[i].value) - y(points[i - 1].value))));
    }
  }
  return rows;
}

// A line whose corners are drawn, or one of `mark`s.
void draw_line(Canvas& canvas, const std::vector<int>& rows, const std::string& mark) {
  const auto put = [&](int row, int column, const char* corner) { canvas.at(row, column) = mark.empty() ? corner : mark; };
  for (int c = 0; c < static_cast<int>(rows.size()); ++c) {
    const int to = rows[static_cast<size_t>(c)], from = c > 0 ? rows[static_cast<size_t>(c - 1)] : -1;
    if (to < 0) continue;
    if (from < 0 || from == to) {
      put(to, c, "\xE2\x94\x80");  // ─
      continue;
    }
    for (int r = std::min(from, to) + 1; r < std::max(from, to); ++r) put(r, c, "\xE2\x94\x82");  // │
    put(from, c, from < to ? "\xE2\x95\xAE" : "\xE2\x95\xAF");                                    // ╮ ╯
    put(to, c, from < to ? "\xE2\x95\xB0" : "\xE2\x95\xAD");                                      // ╰ ╭
  }
}

// One run is a line, held-out losses are "o"; several are letters, held-out ones capitals.
std::string mark_of(const Series& series, bool alone) {
  if (alone) return series.held_out ? "o" : "";
  return std::string(1, static_cast<char>((series.held_out ? 'A' : 'a') + static_cast<int>(series.run)));
}

std::string legend(const Curve& curve, const std::vector<RunHistory>& runs) {
  const bool alone = runs.size() == 1, held_out = std::any_of(curve.series.begin(), curve.series.end(), [](const Series&one) { return one.held_out; });
  if (alone) return held_out ? "  o: held out" : "";
  std::string out;
  for (const Series& series : curve.series) {
    if (series.run < kLetters && !series.held_out) out += fmt::format("  {}: {}", mark_of(series, false), eval::clean(runs[series.run].name, 40));
  }
  if (held_out) out += "  capitals: held out";
  return out;
}

std::string chart(const Curve& curve, const std::vector<RunHistory>& runs, size_t width) {
  const eval::Scale y = curve.value_scale(kRows - 1, 0);
  std::vector<std::string> labels(kRows);
  size_t label_width = 0;
  for (const eval::Tick& tick : eval::ticks_of(y, curve.format, 2.5)) {
    labels[static_cast<size_t>(std::clamp(static_cast<int>(std::lround(y(tick.value))), 0, kRows - 1))] = tick.label;
    label_width = std::max(label_width, tick.label.size());
  }
  const int columns = static_cast<int>(std::max<size_t>(width, label_width + 22) - label_width - 3);
  const eval::Scale x = curve.step_scale(0, columns - 1);
  Canvas canvas(kRows, columns);
  size_t most = 1;
  for (const Series& series : curve.series) {
    if (series.run >= kLetters) continue;
    const std::vector<CurvePoint> points = thinned(series.points, static_cast<size_t>(columns));
    most = std::max(most, (series.points.size() + points.size() - 1) / points.size());
    const std::vector<int> rows = rows_of(points, x, y, columns);
    if (!series.held_out) {
      draw_line(canvas, rows, mark_of(series, runs.size() == 1));
      continue;
    }
    for (const CurvePoint& point : points) {
      const int column = std::clamp(static_cast<int>(std::lround(x(point.step))), 0, columns - 1);
      if (std::isfinite(point.value)) canvas.at(rows[static_cast<size_t>(column)], column) = mark_of(series, runs.size() == 1);
    }
  }
  const std::string mean = most > 1 ? fmt::format(", a point is the mean of {} rows", most) : "";
  std::string out = fmt::format("{} by step{}{}{}\n", curve.title, y.kind() == eval::Scale::Kind::log ? ", log scale" : "", mean, legend(curve, runs));
  for (int r = 0; r < kRows; ++r) {
    const std::string& label = labels[static_cast<size_t>(r)];
    std::string line = canvas.line(r);
    line.erase(line.find_last_not_of(' ') + 1);
    out += fmt::format("{:>{}} {}{}\n", label, label_width, label.empty() ? "\xE2\x94\x82" : "\xE2\x94\xA4", line);
  }
  std::string line, numbers(static_cast<size_t>(columns), ' ');
  for (int c = 0; c < columns; ++c) line += "\xE2\x94\x80";
  for (const eval::Tick& tick : curve.step_ticks(x, 12)) {
    const size_t at = std::min(static_cast<size_t>(std::lround(x(tick.value))), numbers.size() - tick.label.size());
    numbers.replace(at, tick.label.size(), tick.label);
  }
  numbers.erase(numbers.find_last_not_of(' ') + 1);
  out += fmt::format("{:{}} \xE2\x94\x94{}\n{:{}}{}\n", "", label_width, line, "", label_width + 2, numbers);
  return out;
}

}  // namespace

std::string runs_table(const std::vector<RunHistory>& runs) {
  const std::vector<RunColumn> columns = run_columns(runs);
  std::vector<std::vector<std::string>> lines(1);
  std::vector<bool> numeric;
  for (const RunColumn& column : columns) {
    lines[0].push_back(column.title);
    numeric.push_back(column.numeric);
  }
  for (const RunHistory& run : runs) {
    std::vector<std::string>& line = lines.emplace_back();
    for (const RunColumn& column : columns) line.push_back(column.text(run));
  }
  return eval::markdown_table(lines, numeric);
}

std::string runs_charts(const std::vector<RunHistory>& runs, size_t width) {
  std::string out;
  for (const Curve& curve : curves_of(runs)) out += "\n" + chart(curve, runs, width);
  if (runs.size() > kLetters) out += fmt::format("\nthe first {} of {} runs are drawn; --html draws all\n", kLetters, runs.size());
  return out;
}

}  // namespace frugal::train
