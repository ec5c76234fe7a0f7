// One plot of a report as SVG: quality (down is better) against a cost, points labelled, the Pareto front marked.
#pragma once

#include <string>
#include <vector>

#include "eval/report_data.h"
#include "eval/report_scale.h"

namespace frugal::eval {

struct PlotPoint {
  int id = 0;
  Family family = Family::other;
  double x = 0;
  double y = 0;        // ln-perplexity, or its paired difference to the base
  double y_error = 0;  // half the length of the error bar: two standard errors; 0: none known
  bool front = false;
  std::string label;  // these are not escaped
  std::string tooltip;
};

struct Plot {
  std::string title;
  std::string x_title;
  bool x_lower_is_better = true;
  TickFormat x_format = TickFormat::bytes;
  bool ratio = true;  // y is a difference to the base; else ln-perplexity
  std::vector<PlotPoint> points;
};

// The plots of a group: quality against size, then against rate and memory for each machine. A plot without a point is left out.
std::vector<Plot> plots_of(const Report& report, const TextGroup& group);

// An SVG fragment that fills width x height from (0, 0); its styles are plot_style(). Points whose perplexity is more than
// 20 times the base's are drawn at the upper edge with an arrow and their value, so that they do not squash the rest.
std::string draw_plot(const Plot& plot, double width, double height);

std::string plot_style();  // CSS

}  // namespace frugal::eval
