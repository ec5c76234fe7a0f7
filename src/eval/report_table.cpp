#include "eval/report_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "eval/report.h"
#include "eval/report_text.h"

namespace frugal::eval {
namespace {

using chain::LedgerRow;

Column number_column(std::string title, std::string help, std::function<std::optional<double>(const Point&)> value,
                     std::function<std::string(double)> format = format_number) {
  return {std::move(title), std::move(help), true, true, [value = std::move(value), format = std::move(format)](const Point& point) {
            const auto number = value(point);
            return number ? Cell{format(*number), *number} : Cell{};
          }};
}

Column field_column(std::string title, std::string help, std::optional<double> LedgerRow::*field, std::function<std::string(double)> format = format_number) {
  return number_column(
      std::move(title), std::move(help), [field](const Point& point) { return point.row.*field; }, std::move(format));
}

Column bytes_column(std::string title, std::string help, std::optional<int64_t> LedgerRow::*field) {
  return number_column(
      std::move(title), std::move(help),
      [field](const Point& point) { return point.row.*field ? std::optional<double>(static_cast<double>(*(point.row.*field))) : std::nullopt; }, format_bytes);
}

std::string percent(double share) { return fmt::format("{:.1f} %", 100 * share); }

Cell change_cell(const Point& point) {
  const LedgerRow& row = point.row;
  if (!row.ln_ratio) return {};
  std::string text = format_ratio(*row.ln_ratio);
  if (row.ln_ratio_stderr) text += fmt::format(" ± {:.2g} %", 100 * *row.ln_ratio_stderr);
  return {text, *row.ln_ratio};
}

Cell front_cell(const Point& point) {
  std::string text;
  for (const auto& [mark, word] : {std::pair{&Point::on_size_front, "size"}, {&Point::on_rate_front, "rate"}, {&Point::on_memory_front, "memory"}}) {
    if (point.*mark) text += (text.empty() ? "" : ", ") + std::string(word);
  }
  return {text, 0};
}

Cell name_cell(const Point& point) { return {clean(point.row.name, 60), 0}; }

Cell chain_cell(const Point& point) {
  const std::string chain = full_chain(point.row.chain, point.row.runtime);
  return {chain::is_base(point.row) ? "(the base)" : clean(chain, 200), 0};
}

void add_task_columns(std::vector<Column>& columns, const Report& report, const TextGroup& group) {
  std::set<std::string> tasks;
  for (const int index : group.points) {
    for (const auto& [task, score] : report.at(index).row.tasks) tasks.insert(task);
  }
  for (const std::string& task : tasks) {
    columns.push_back(number_column(
        clean(task, 30), "accuracy",
        [task](const Point& point) {
          const auto it = point.row.tasks.find(task);
          return it == point.row.tasks.end() ? std::nullopt : std::optional<double>(it->second);
        },
        percent));
  }
}

std::string table_of(const Report& report, const TextGroup& group) {
  std::vector<Column> columns = columns_of(report, group);
  std::erase_if(columns, [](const Column& column) { return !column.in_terminal; });
  std::vector<std::vector<std::string>> lines(1);
  std::vector<bool> numeric;
  for (const Column& column : columns) {
    lines[0].push_back(column.title);
    numeric.push_back(column.numeric);
  }
  for (const int index : group.points) {
    std::vector<std::string>& line = lines.emplace_back();
    for (const Column& column : columns) line.push_back(column.cell(report.at(index)).text);
  }
  return markdown_table(lines, numeric);
}

}  // namespace

std::string machine_letter(const TextGroup& group, const LedgerRow& row) {
  const auto it = std::find_if(group.machines.begin(), group.machines.end(), [&](const MachineGroup& machine) { return machine.machine == row.machine; });
  const auto place = it - group.machines.begin();
  return place < 26 ? std::string(1, static_cast<char>('A' + place)) : fmt::format("M{}", place + 1);
}

std::vector<Column> columns_of(const Report& report, const TextGroup& group) {
  std::vector<Column> columns = {
      number_column(
          "#", "number in the plots", [](const Point& point) { return std::optional<double>(point.id); }, [](double id) { return fmt::format("{:.0f}", id); }),
      {"point", "label of the point", false, true, name_cell},
      {"chain", "the steps, in order", false, true, chain_cell},
      bytes_column("size", "all weight files on disk", &LedgerRow::bytes),
      field_column("bits/weight", "8 x bytes / parameters of the original", &LedgerRow::bits_per_weight),
      field_column("perplexity", "on the evaluation text", &LedgerRow::perplexity),
      {"vs base", "perplexity against the base's, one paired standard error", true, true, change_cell},
      field_column("KL", "mean divergence from the base's next-token distribution, nats", &LedgerRow::kl_mean),
      field_column("top-1", "positions where the likeliest token is the base's", &LedgerRow::top1_agreement, percent),
  };
  add_task_columns(columns, report, group);
  const std::vector<Column> costs = {
      field_column("prefill t/s", "prompt tokens a second", &LedgerRow::prefill_tps),
      field_column("decode t/s", "generated tokens a second", &LedgerRow::decode_tps),
      bytes_column("memory", "peak resident, while evaluated", &LedgerRow::peak_rss_bytes),
      number_column(
          "made in", "the chain's steps together", [](const Point& point) { return point.family == Family::base ? std::nullopt : point.seconds_to_make; },
          format_seconds),
      field_column("energy", "of the run", &LedgerRow::energy_joules, [](double joules) { return format_number(joules) + " J"; }),
      {"front of", "no comparable point is as good in both and better in one", false, true, front_cell},
      {"notes", "", false, false,
       [](const Point& point) {
         return Cell{clean(point.row.notes, 120), 0};
       }},
  };
  columns.insert(columns.end(), costs.begin(), costs.end());
  if (group.machines.size() > 1) {
    columns.push_back({"machine", "rates and memory compare on one machine only", false, true, [&group](const Point& point) {
                         return Cell{machine_letter(group, point.row), 0};
                       }});
  }
  const std::set<std::string> page_only = {"KL", "top-1", "prefill t/s", "made in", "energy"};
  for (Column& column : columns) column.in_terminal = column.in_terminal && !page_only.contains(column.title);
  std::erase_if(columns, [&](const Column& column) {
    return std::all_of(group.points.begin(), group.points.end(), [&](int index) { return column.cell(report.at(index)).text.empty(); });
  });
  return columns;
}

std::string report_table(const std::vector<LedgerRow>& rows) {
  const Report report = arrange(rows);
  if (report.groups.empty()) return "no evaluations\n";
  std::string out;
  if (report.groups.size() > 1)
    out += fmt::format("{} groups that must not be compared (another model, text, context or number of chunks):\n\n", report.groups.size());
  for (const TextGroup& group : report.groups) {
    const LedgerRow& first = report.at(group.points.front()).row;
    out += fmt::format("{}, {}\n", clean(first.model.empty() ? "unnamed model" : first.model, 80), clean(describe_text(first), 120));
    for (const MachineGroup& machine : group.machines) {
      const std::string letter = group.machines.size() > 1 ? machine_letter(group, report.at(machine.points.front()).row) + ": " : "";
      out += fmt::format("{}{}\n", letter, clean(describe_machine(machine.machine), 120));
    }
    if (group.machines.size() > 1) out += "rates, memory and their fronts compare only on one machine\n";
    out += "\n" + table_of(report, group) + "\n";
  }
  return out;
}

}  // namespace frugal::eval
