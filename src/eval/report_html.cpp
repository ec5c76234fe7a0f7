#include <fmt/format.h>

#include "eval/report.h"
#include "eval/report_page.h"
#include "eval/report_page_html.h"
#include "eval/report_plot.h"
#include "eval/report_table.h"
#include "eval/report_text.h"

namespace frugal::eval {
namespace {

std::string model_name(const chain::LedgerRow& row) { return row.model.empty() ? "unnamed model" : row.model; }

std::string summary(const Report& report, const TextGroup& group) {
  std::string items;
  for (const std::string& sentence : in_short(report, group)) items += fmt::format("<li>{}</li>", escaped(sentence));
  return items.empty() ? "" : fmt::format("<div class=\"card short\"><ul>{}</ul></div>\n", items);
}

std::string figures(const Report& report, const TextGroup& group) {
  constexpr double kWidth = 1026, kHeight = 440;
  std::string out;
  for (const Plot& plot : plots_of(report, group)) {
    out += fmt::format("<figure class=\"card\"><svg class=\"plot\" viewBox=\"0 0 {0:.0f} {1:.0f}\" role=\"group\" aria-label=\"{2}\">{3}</svg></figure>\n",
                       kWidth, kHeight, escaped(plot.title), draw_plot(plot, kWidth, kHeight));
  }
  return out;
}

std::string table(const Report& report, const TextGroup& group) {
  const std::vector<Column> columns = columns_of(report, group);
  std::string head, body;
  for (const Column& column : columns) {
    head += fmt::format("<th{}><button title=\"{}\">{}</button></th>", column.numeric ? " class=\"number\"" : "", escaped(column.help), escaped(column.title));
  }
  for (const int index : group.points) {
    const Point& point = report.at(index);
    body += fmt::format("<tr data-id=\"{}\">", point.id);
    for (const Column& column : columns) {
      const Cell cell = column.cell(point);
      const std::string text = escaped(cell.text);
      if (column.numeric) {
        body += fmt::format("<td class=\"number\" data-sort=\"{}\">{}</td>", cell.sort, text);
      } else {
        body += fmt::format("<td{}>{}</td>",
                            column.title == "chain"   ? " class=\"chain\""
                            : column.title == "notes" ? " class=\"notes\""
                                                      : " class=\"text\"",
                            text);
      }
    }
    body += "</tr>\n";
  }
  return fmt::format("<div class=\"card scroll\"><table><thead><tr>{}</tr></thead><tbody>\n{}</tbody></table></div>\n", head, body);
}

std::string machines(const Report& report, const TextGroup& group) {
  std::string out;
  for (const MachineGroup& machine : group.machines) {
    if (!out.empty()) out += "<br>";
    if (group.machines.size() > 1) out += fmt::format("<b>{}</b> ", machine_letter(group, report.at(machine.points.front()).row));
    out += escaped(describe_machine(machine.machine), 160);
  }
  return fmt::format("<p class=\"quiet\">{}</p>\n", out);
}

std::string section(const Report& report, const TextGroup& group, bool alone) {
  const chain::LedgerRow& first = report.at(group.points.front()).row;
  std::string out;
  if (!alone) out += fmt::format("<h2>{}</h2>\n", escaped(model_name(first), 120));
  out += fmt::format("<p class=\"quiet\">{}</p>\n", escaped(describe_text(first), 200));
  out += machines(report, group);
  if (group.machines.size() > 1) {
    out += fmt::format(
        "<p class=\"card notice\">Measured on {} machines or with different threads: rates and memory have a plot and a front for each, "
        "since they must not be compared.</p>\n",
        group.machines.size());
  }
  return out + summary(report, group) + figures(report, group) + table(report, group);
}

std::string body_of(const Report& report, const std::string& title) {
  std::string out = fmt::format("<h1>{}</h1>\n", escaped(title));
  if (report.groups.empty()) return out + "<p>The ledger holds no evaluations.</p>";
  if (report.groups.size() > 1) {
    out += fmt::format(
        "<p class=\"card notice\">These ledgers hold {} groups of results that must not be compared: another base model, text, context or "
        "number of chunks. Each has a section of its own.</p>\n",
        report.groups.size());
  }
  for (const TextGroup& group : report.groups) out += section(report, group, report.groups.size() == 1);
  return out;
}

}  // namespace

std::string report_html(const std::vector<chain::LedgerRow>& rows) {
  const Report report = arrange(rows);
  std::string title = "frugal: what was measured";
  if (report.groups.size() == 1) {
    const TextGroup& group = report.groups.front();
    title = fmt::format("{}: what each way to make it cheaper costs", clean(model_name(report.at(group.points.front()).row), 120));
  }
  return filled_page(kPageHtml, {{"title", escaped(title)}, {"style", page_style()}, {"body", body_of(report, title)}});
}

}  // namespace frugal::eval
