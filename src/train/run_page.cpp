#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/json.h"
#include "eval/report_page.h"
#include "eval/report_text.h"
#include "train/run_curves.h"
#include "train/run_page_html.h"
#include "train/run_report.h"

namespace frugal::train {
namespace {

using eval::escaped;

constexpr double kWidth = 470, kHeight = 290;
constexpr eval::Box kArea{62, 42, kWidth - 18, kHeight - 40};
constexpr size_t kPoints = 600, kColours = 8;

// Every second round of colours is dotted.
std::string colour(size_t run) { return fmt::format("c{}{}", run % kColours, run / kColours % 2 == 1 ? " again" : ""); }

std::string swatch(const std::string& of) { return fmt::format("<i class=\"swatch {}\"></i>", of); }

// A point between two gaps is a dot, as is every one of held-out losses.
std::string draw_series(const Series& series, const std::vector<CurvePoint>& points, const eval::Scale& x, const eval::Scale& y) {
  std::string path, dots;
  const auto finite = [&](size_t i) { return i < points.size() && std::isfinite(points[i].value); };
  for (size_t i = 0; i < points.size(); ++i) {
    if (!finite(i)) continue;
    const double px = x(points[i].step), py = y(points[i].value);
    const bool begins = i == 0 || !finite(i - 1);
    path += fmt::format("{}{:.1f} {:.1f}", begins ? "M" : "L", px, py);
    if (series.held_out || (begins && !finite(i + 1)))
      dots += fmt::format(R"(<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="3"/>)", colour(series.run), px, py);
  }
  return fmt::format(R"(<path class="curve {}{}" d="{}"/>)", colour(series.run), series.held_out ? " held" : "", path) + dots;
}

struct Drawn {
  std::string figure;
  Json data;  // for the pointer
};

Drawn draw(const Curve& curve, const std::vector<RunHistory>& runs) {
  const eval::Scale x = curve.step_scale(kArea.left, kArea.right), y = curve.value_scale(kArea.bottom, kArea.top);
  std::string lines;
  Json data = {{"left", kArea.left},     {"right", kArea.right}, {"first", x.low()}, {"last", x.high()}, {"bytes", curve.format == eval::TickFormat::bytes},
               {"series", Json::array()}};
  for (const Series& series : curve.series) {
    const std::vector<CurvePoint> points = thinned(series.points, kPoints);
    lines += draw_series(series, points, x, y);
    Json pairs = Json::array();
    for (const CurvePoint& point : points) pairs.push_back({point.step, point.value});
    const std::string name = runs.size() == 1 ? curve.title : eval::clean(runs[series.run].name, 60);
    data["series"].push_back({{"run", series.run}, {"name", name}, {"held_out", series.held_out}, {"points", pairs}});
  }
  const std::string title = escaped(curve.title) + (y.kind() == eval::Scale::Kind::log ? R"( <tspan class="caption">log scale</tspan>)" : "");
  const std::string figure = fmt::format(
      R"(<figure class="card"><svg class="plot" viewBox="0 0 {0:.0f} {1:.0f}" role="img" aria-label="{2} over the steps"><text class="title" x="14" y="24">{3}</text>{4}<text class="caption" x="{5:.1f}" y="{6:.1f}" text-anchor="end">step</text><line class="cursor" y1="{7:.1f}" y2="{8:.1f}"/>{9}</svg></figure>)",
      kWidth, kHeight, escaped(curve.title), title, draw_axes(kArea, x, curve.step_ticks(x, 60), y, eval::ticks_of(y, curve.format, 26)), kArea.right,
      kHeight - 6, kArea.top, kArea.bottom, lines);
  return {figure + "\n", data};
}

std::string table(const std::vector<RunHistory>& runs) {
  const std::vector<RunColumn> columns = run_columns(runs);
  std::string head, body;
  for (const RunColumn& column : columns)
    head += fmt::format("<th{} title=\"{}\">{}</th>", column.numeric ? " class=\"number\"" : "", escaped(column.help), escaped(column.title));
  for (size_t i = 0; i < runs.size(); ++i) {
    body += "<tr>";
    for (size_t k = 0; k < columns.size(); ++k) {
      body += fmt::format("<td{}>{}{}</td>", columns[k].numeric ? " class=\"number\"" : "", k == 0 && runs.size() > 1 ? swatch(colour(i)) : "",
                          escaped(columns[k].text(runs[i])));
    }
    body += "</tr>\n";
  }
  return fmt::format(
      "<div class=\"card scroll\" role=\"region\" aria-label=\"runs\" tabindex=\"0\"><table><thead><tr>{}</tr></thead><tbody>\n{}</tbody></table></div>\n",
      head, body);
}

std::string legend(const std::vector<RunHistory>& runs, bool held_out) {
  std::string items;
  if (runs.size() > 1) {
    for (size_t i = 0; i < runs.size(); ++i) items += fmt::format("<li>{}{}</li>", swatch(colour(i)), escaped(runs[i].name, 60));
  }
  if (held_out) items += fmt::format("<li>{}loss on held-out data</li>", swatch("held"));
  return items.empty() ? "" : fmt::format("<ul class=\"legend-list\">{}</ul>\n", items);
}

}  // namespace

std::string runs_page(const std::vector<RunHistory>& runs) {
  const std::string title = runs.size() == 1 ? "Training run " + eval::clean(runs[0].name, 100) : fmt::format("{} training runs", runs.size());
  std::string figures;
  Json data = Json::array();
  bool held_out = false;
  for (const Curve& curve : curves_of(runs)) {
    const Drawn drawn = draw(curve, runs);
    figures += drawn.figure;
    data.push_back(drawn.data);
    held_out = held_out || std::any_of(curve.series.begin(), curve.series.end(), [](const Series& series) { return series.held_out; });
  }
  const std::string body = fmt::format("<h1>{}</h1>\n{}{}", escaped(title), table(runs), legend(runs, held_out)) +
                           (figures.empty() ? "<p class=\"quiet\">Nothing is logged yet.</p>" : fmt::format("<div class=\"curves\">\n{}</div>", figures));
  std::string json = data.dump(-1, ' ', false, Json::error_handler_t::replace);
  for (size_t at = 0; (at = json.find('<', at)) != json.npos;) json.replace(at, 1, "\\u003c");  // nothing ends the element early
  return eval::filled_page(kRunPageHtml, {{"title", escaped(title)}, {"style", eval::page_style()}, {"body", body}, {"data", json}});
}

}  // namespace frugal::train
