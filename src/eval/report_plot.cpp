#include "eval/report_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>

#include "eval/report_labels.h"
#include "eval/report_plot_css.h"
#include "eval/report_text.h"

namespace frugal::eval {
namespace {

constexpr double kLabelSize = 12;
const double kClip = std::log(20.0);  // of a difference of ln-perplexities

// Where everything of one plot lies.
struct Frame {
  const Plot& plot;
  Box area;
  Scale x, y;
  double clip;  // points above are drawn at the upper edge

  bool clipped(const PlotPoint& point) const { return point.y > clip; }
  double px(const PlotPoint& point) const { return x(point.x); }
  double py(const PlotPoint& point) const { return clipped(point) ? area.top + 26 : y(point.y); }
};

// Room for clipped points is kept above the scale.
Frame frame_of(const Plot& plot, double width, double height) {
  const Box area{64, 64, width - 30, height - 52};
  std::vector<double> xs, ys;
  double smallest = plot.points.front().y;
  for (const PlotPoint& point : plot.points) {
    xs.push_back(point.x);
    smallest = std::min(smallest, point.y);
  }
  const double clip = (plot.ratio ? 0 : smallest) + kClip;
  bool any_clipped = false;
  for (const PlotPoint& point : plot.points) {
    any_clipped = any_clipped || point.y > clip;
    if (point.y > clip) continue;
    ys.push_back(point.y);
    ys.push_back(std::min(point.y + point.y_error, clip));
    ys.push_back(point.y - std::min(point.y_error, 1.0));
  }
  if (ys.empty()) ys = {clip - kClip, clip};
  const double bottom = area.bottom - 16, top = area.top + (any_clipped ? 50 : 14);
  const auto [low, high] = std::minmax_element(ys.begin(), ys.end());
  const Scale y = plot.ratio ? Scale(Scale::Kind::ratio, std::min(0.0, *low), std::max({*high, *low + 0.01, 0.01}), bottom, top)
                             : Scale(Scale::Kind::linear, *low, std::max(*high, *low + 0.01), bottom, top);
  return {plot, area, scale_around(xs, area.left, area.right), y, clip};
}

std::string marker(Family family, double x, double y) {
  const auto path = [&](const char* shape) {
    return fmt::format(R"svg(<path class="mark {}" transform="translate({:.1f} {:.1f})" d="{}"/>)svg", family_name(family), x, y, shape);
  };
  switch (family) {
    case Family::base: return path("M0-8.5 2.2-2.9 8.1-2.6 3.5 1.1 5 6.9 0 3.6-5 6.9-3.5 1.1-8.1-2.6-2.2-2.9Z");
    case Family::quantize: return fmt::format(R"(<circle class="mark quantize" cx="{:.1f}" cy="{:.1f}" r="5.5"/>)", x, y);
    case Family::prune: return path("M-5-5H5V5H-5Z");
    case Family::lowrank: return path("M0-6.5 6.2 4.6H-6.2Z");
    case Family::mixed: return path("M0-7 7 0 0 7-7 0Z");
    case Family::other: return path("M-2-6H2V-2H6V2H2V6H-2V2H-6V-2H-2Z");
  }
  return "";
}

// Right-aligned above the plot: the families that occur, and what filled means.
std::string legend(const Plot& plot, double right) {
  std::string out, words = "filled: on the Pareto front";
  double x = right - text_width(words, kLabelSize);
  out += fmt::format(R"(<text class="legend" x="{:.1f}" y="22">{}</text>)", x, words);
  constexpr Family kOrder[] = {Family::other, Family::mixed, Family::lowrank, Family::prune, Family::quantize, Family::base};
  for (const Family family : kOrder) {
    const auto has = [&](const PlotPoint& point) { return point.family == family; };
    if (std::none_of(plot.points.begin(), plot.points.end(), has)) continue;
    const char* name = family == Family::lowrank ? "low rank" : family == Family::mixed ? "mixed" : family_name(family);
    x -= 16 + text_width(name, kLabelSize);
    out += fmt::format(R"(<text class="legend" x="{:.1f}" y="22">{}</text><g class="front">{}</g>)", x, name, marker(family, x - 11, 18));
    x -= 18;
  }
  return out;
}

std::string axes(const Frame& frame) {
  const Box& area = frame.area;
  const std::vector<Tick> y_ticks = frame.plot.ratio ? ratio_ticks(frame.y, 22) : ticks_of(frame.y, TickFormat::perplexity, 22);
  const char* better = frame.plot.x_lower_is_better ? "\xE2\x86\x90 left is better" : "right is better \xE2\x86\x92";
  return draw_axes(area, frame.x, ticks_of(frame.x, frame.plot.x_format, 70), frame.y, y_ticks) +
         fmt::format(R"(<text class="caption" x="{:.1f}" y="{:.1f}">{}</text><text class="caption" x="{:.1f}" y="{:.1f}" text-anchor="end">{}</text>)",
                     area.left, area.bottom + 38, escaped(frame.plot.x_title), area.right, area.bottom + 38, better);
}

// The border of what the front beats, as corners: across at each point's quality, then down to the next.
std::vector<std::pair<double, double>> frontier_corners(const Frame& frame) {
  std::vector<const PlotPoint*> front;
  for (const PlotPoint& point : frame.plot.points) {
    if (point.front) front.push_back(&point);
  }
  std::stable_sort(front.begin(), front.end(),
                   [&](const PlotPoint* a, const PlotPoint* b) { return frame.plot.x_lower_is_better ? a->x < b->x : a->x > b->x; });
  std::vector<std::pair<double, double>> corners;
  double y = frame.area.top;
  for (const PlotPoint* point : front) {
    corners.emplace_back(frame.px(*point), y);
    y = frame.py(*point);
    corners.emplace_back(frame.px(*point), y);
  }
  if (!corners.empty()) corners.emplace_back(frame.plot.x_lower_is_better ? frame.area.right : frame.area.left, y);
  return corners;
}

std::string frontier(const std::vector<std::pair<double, double>>& corners) {
  std::string path;
  for (const auto& [x, y] : corners) path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : "L", x, y);
  return fmt::format(R"(<path class="frontier" d="{}"/>)", path);
}

// The border as thin boxes, for labels to keep clear of.
std::vector<Box> frontier_boxes(const std::vector<std::pair<double, double>>& corners) {
  std::vector<Box> boxes;
  for (size_t i = 1; i < corners.size(); ++i) {
    const auto [x0, y0] = corners[i - 1];
    const auto [x1, y1] = corners[i];
    boxes.push_back({std::min(x0, x1) - 2, std::min(y0, y1) - 2, std::max(x0, x1) + 2, std::max(y0, y1) + 2});
  }
  return boxes;
}

struct Span {
  double top, bottom;
};

Span error_span(const Frame& frame, const PlotPoint& point) {
  const double y = frame.py(point);
  if (frame.clipped(point) || !(point.y_error > 0)) return {y, y};
  return {std::max(frame.y(point.y + point.y_error), frame.area.top), std::min(frame.y(point.y - point.y_error), frame.area.bottom)};
}

std::string draw_point(const Frame& frame, const PlotPoint& point) {
  const double x = frame.px(point), y = frame.py(point);
  const Span error = error_span(frame, point);
  std::string out = fmt::format(R"(<g class="pt{}" data-id="{}" tabindex="0" role="img" aria-label="{}"><title>{}</title>)", point.front ? " front" : "",
                                point.id, escaped(point.label), escaped(point.tooltip, 2000));
  // Shorter bars would hide behind the marker.
  if (error.bottom - error.top > 13) {
    out += fmt::format(R"(<path class="error {0}" d="M{1:.1f} {2:.1f}V{3:.1f}M{4:.1f} {2:.1f}H{5:.1f}M{4:.1f} {3:.1f}H{5:.1f}"/>)", family_name(point.family),
                       x, error.top, error.bottom, x - 3.5, x + 3.5);
  }
  if (frame.clipped(point)) {
    out += fmt::format(R"(<path class="error {}" d="M{:.1f} {:.1f}l5-6 5 6"/>)", family_name(point.family), x - 5, y - 11);
  }
  return out + marker(point.family, x, y) + "</g>";
}

std::string labels(const Frame& frame, const std::vector<Box>& avoid) {
  std::vector<LabelRequest> requests;
  for (const PlotPoint& point : frame.plot.points) {
    const Span error = error_span(frame, point);
    std::string text = clean(point.label, 44);
    if (frame.clipped(point)) text += frame.plot.ratio ? " (" + format_ratio(point.y) + ")" : fmt::format(" ({})", format_number(std::exp(point.y)));
    requests.push_back({frame.px(point), frame.py(point), error.top, error.bottom, text, fmt::format("#{}", point.id), point.front});
    if (frame.clipped(point)) requests.back().error_top -= 20;  // the arrow
  }
  const Box area{frame.area.left + 2, frame.area.top + 1, frame.area.right, frame.area.bottom - 2};
  const std::vector<PlacedLabel> placed = place_labels(requests, avoid, area, kLabelSize);
  std::string lines, texts;
  for (size_t i = 0; i < placed.size(); ++i) {
    const PlacedLabel& label = placed[i];
    if (!label.shown) continue;
    if (label.leader) {
      lines += fmt::format(R"(<line class="leader" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>)", requests[i].x, requests[i].y, label.leader_x,
                           label.leader_y);
    }
    texts += fmt::format(R"(<text class="label{}" x="{:.1f}" y="{:.1f}">{}</text>)", frame.plot.points[i].front ? " front" : "", label.x, label.y,
                         escaped(label.text));
  }
  return lines + texts;
}

std::string tooltip_of(const Point& point, const TextGroup& group) {
  const chain::LedgerRow& row = point.row;
  std::string out = row.name.empty() ? "" : row.name + "\n";
  out += chain::is_base(row) ? "the base" : full_chain(row.chain, row.runtime);
  if (row.perplexity) out += fmt::format("\nperplexity {}", format_number(*row.perplexity));
  if (group.paired && row.ln_ratio) out += fmt::format(" ({})", format_ratio(*row.ln_ratio));
  if (row.bytes) out += "\n" + format_bytes(static_cast<double>(*row.bytes));
  if (row.decode_tps) out += fmt::format("\ndecode {} tokens/s", format_rate(*row.decode_tps));
  return out;
}

// Half an error bar: two standard errors, of the paired difference where the plot shows that.
double error_of(const Point& point, const TextGroup& group) {
  const chain::LedgerRow& row = point.row;
  if (group.paired) return 2 * row.ln_ratio_stderr.value_or(0);
  return row.perplexity_stderr && row.perplexity && *row.perplexity > 0 ? 2 * *row.perplexity_stderr / *row.perplexity : 0;
}

struct Against {
  const char* title;
  const char* x_title;
  const chain::Metric& metric;
  TickFormat format;
  bool Point::*front;
};

void add_plot(std::vector<Plot>& plots, const Report& report, const TextGroup& group, const std::vector<int>& indices, const Against& against,
              const std::string& where) {
  Plot plot{std::string(against.title) + where, against.x_title, against.metric.lower_is_better, against.format, group.paired, {}};
  for (const int index : indices) {
    const Point& point = report.at(index);
    const auto x = against.metric.value(point.row), y = quality_metric(group).value(point.row);
    if (!x || !y) continue;
    plot.points.push_back({point.id, point.family, *x, *y, error_of(point, group), point.*against.front, point.label, tooltip_of(point, group)});
  }
  if (!plot.points.empty()) plots.push_back(std::move(plot));
}

}  // namespace

std::string plot_style() { return kPlotCss; }

std::vector<Plot> plots_of(const Report& report, const TextGroup& group) {
  std::vector<Plot> plots;
  add_plot(plots, report, group, group.distinct,
           {"Quality against size", "all weight files on disk", chain::metric_bytes(), TickFormat::bytes, &Point::on_size_front}, "");
  for (const MachineGroup& machine : group.machines) {
    const std::string where = group.machines.size() > 1 ? " \xC2\xB7 " + clean(describe_machine(machine.machine), 90) : "";
    add_plot(plots, report, group, machine.points,
             {"Quality against decode rate", "tokens a second", chain::metric_decode_tps(), TickFormat::rate, &Point::on_rate_front}, where);
    add_plot(plots, report, group, machine.points,
             {"Quality against memory", "peak resident memory", chain::metric_peak_rss_bytes(), TickFormat::bytes, &Point::on_memory_front}, where);
  }
  return plots;
}

std::string draw_plot(const Plot& plot, double width, double height) {
  const Frame frame = frame_of(plot, width, height);
  std::string out = fmt::format(R"(<text class="title" x="16" y="23">{}</text>)", escaped(plot.title));
  out += fmt::format(R"(<text class="caption" x="16" y="46">↓ {}, down is better; bars: ± 2 {}standard errors</text>)",
                     plot.ratio ? "perplexity against the base's" : "perplexity", plot.ratio ? "paired " : "");
  const bool room = text_width(plot.title, 15) < width - 560;
  out += room ? legend(plot, width - 30) : "";
  const auto corners = frontier_corners(frame);
  out += axes(frame) + (corners.empty() ? "" : frontier(corners));
  std::string points;
  for (const PlotPoint& point : plot.points) points += draw_point(frame, point);
  return out + labels(frame, frontier_boxes(corners)) + points;
}

}  // namespace frugal::eval
