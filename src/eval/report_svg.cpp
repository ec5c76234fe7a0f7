#include <fmt/format.h>

#include "eval/report.h"
#include "eval/report_plot.h"
#include "eval/report_text.h"

namespace frugal::eval {
namespace {

constexpr double kWidth = 960;
constexpr double kPlotHeight = 430;
constexpr double kHeading = 58;

// A rounded card with one plot.
std::string card(const Plot& plot, double top) {
  return fmt::format(R"svg(<g transform="translate(0 {:.0f})"><rect class="card" x=".5" y=".5" width="{:.0f}" height="{:.0f}" rx="10"/>{}</g>)svg", top,
                     kWidth - 1, kPlotHeight - 11, draw_plot(plot, kWidth, kPlotHeight - 10));
}

}  // namespace

std::string report_svg(const std::vector<chain::LedgerRow>& rows) {
  const Report report = arrange(rows);
  std::string body;
  double top = 0;
  for (const TextGroup& group : report.groups) {
    const chain::LedgerRow& first = report.at(group.points.front()).row;
    std::string details = describe_text(first);
    if (group.machines.size() == 1) details += " \xC2\xB7 " + describe_machine(group.machines.front().machine);
    body += fmt::format(R"(<rect class="card" y="{:.0f}" x=".5" width="{:.0f}" height="{:.0f}" rx="10"/>)", top + 0.5, kWidth - 1, kHeading - 11);
    body += fmt::format(R"(<text class="title" x="16" y="{:.0f}">{}</text><text class="caption" x="16" y="{:.0f}">{}</text>)", top + 20,
                        escaped(first.model.empty() ? "unnamed model" : first.model, 100), top + 38, escaped(details, 150));
    top += kHeading;
    for (const Plot& plot : plots_of(report, group)) {
      body += card(plot, top);
      top += kPlotHeight;
    }
  }
  if (report.groups.empty()) {
    body = R"(<text x="16" y="28">no evaluations</text>)";
    top = 50;
  }
  return fmt::format(R"(<?xml version="1.0" encoding="UTF-8"?>
<svg xmlns="http://www.w3.org/2000/svg" class="plot" width="{0:.0f}" height="{1:.0f}" viewBox="0 0 {0:.0f} {1:.0f}"><style>{2}</style>
{3}
</svg>
)",
                     kWidth, top, plot_style(), body);
}

}  // namespace frugal::eval
