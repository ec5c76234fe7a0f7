#include "eval/report_data.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "eval/report_text.h"

namespace frugal::eval {
namespace {

using chain::LedgerRow;
using chain::Metric;
using chain::Scope;

Family family_of(const LedgerRow& row) {
  if (row.chain.empty()) return chain::is_base(row) ? Family::base : Family::other;
  const std::string& leaf = row.leaves.front();
  for (const std::string& other : row.leaves) {
    if (other != leaf) return Family::mixed;
  }
  if (leaf == "quantize") return Family::quantize;
  if (leaf == "prune") return Family::prune;
  return leaf == "lowrank" ? Family::lowrank : Family::other;
}

std::string label_of(const LedgerRow& row) {
  const std::string chain = short_chain(row.chain, row.runtime);
  if (!chain.empty()) return chain;
  return row.name.empty() ? "base" : row.name;
}

TextGroup& group_for(Report& report, const LedgerRow& row) {
  const std::string key = chain::comparison_key(row, Scope::text);
  for (TextGroup& group : report.groups) {
    if (chain::comparison_key(report.at(group.points.front()).row, Scope::text) == key) return group;
  }
  return report.groups.emplace_back();
}

void add_point(Report& report, TextGroup& group, int index) {
  const LedgerRow& row = report.at(index).row;
  group.points.push_back(index);
  group.paired = group.paired || row.ln_ratio.has_value();
  const auto same = std::find_if(group.distinct.begin(), group.distinct.end(), [&](int other) { return chain::same_point(report.at(other).row, row); });
  if (same == group.distinct.end()) {
    group.distinct.push_back(index);
  } else if (row.time >= report.at(*same).row.time) {
    *same = index;
  }
  const std::string key = chain::comparison_key(row, Scope::machine);
  for (MachineGroup& machine : group.machines) {
    const LedgerRow& first = report.at(machine.points.front()).row;
    if (chain::comparison_key(first, Scope::machine) == key) {
      machine.points.push_back(index);
      return;
    }
  }
  group.machines.push_back({row.machine, {index}});
}

void mark_front(Report& report, const std::vector<int>& indices, const Metric& x, const Metric& y, bool Point::*mark) {
  std::vector<LedgerRow> rows;
  for (const int index : indices) rows.push_back(report.at(index).row);
  for (const size_t i : chain::pareto_front(rows, x, y)) report.points[static_cast<size_t>(indices[i])].*mark = true;
}

}  // namespace

const char* family_name(Family family) {
  switch (family) {
    case Family::base: return "base";
    case Family::quantize: return "quantize";
    case Family::prune: return "prune";
    case Family::lowrank: return "lowrank";
    case Family::mixed: return "mixed";
    case Family::other: return "other";
  }
  FRUGAL_ASSERT(false);
  return "";
}

const Metric& quality_metric(const TextGroup& group) { return group.paired ? chain::metric_ln_ratio() : chain::metric_ln_perplexity(); }

Report arrange(const std::vector<LedgerRow>& rows) {
  Report report;
  for (LedgerRow& row : chain::latest_evaluations(rows)) {
    Point point;
    point.id = static_cast<int>(report.points.size()) + 1;
    point.family = family_of(row);
    point.label = label_of(row);
    point.seconds_to_make = chain::seconds_to_make(row, rows);
    point.row = std::move(row);
    report.points.push_back(std::move(point));
  }
  for (size_t i = 0; i < report.points.size(); ++i) {
    add_point(report, group_for(report, report.points[i].row), static_cast<int>(i));
  }
  for (const TextGroup& group : report.groups) {
    const Metric& quality = quality_metric(group);
    mark_front(report, group.distinct, chain::metric_bytes(), quality, &Point::on_size_front);
    for (const MachineGroup& machine : group.machines) {
      mark_front(report, machine.points, chain::metric_decode_tps(), quality, &Point::on_rate_front);
      mark_front(report, machine.points, chain::metric_peak_rss_bytes(), quality, &Point::on_memory_front);
    }
  }
  return report;
}

std::string describe_machine(const chain::Machine& machine) {
  return fmt::format("{}, {}, {} of {} threads, {}", machine.cpu.empty() ? "unknown processor" : machine.cpu,
                     machine.isa.empty() ? "instruction set unknown" : machine.isa, machine.threads, machine.cores,
                     format_bytes(static_cast<double>(machine.memory_bytes)));
}

std::string describe_text(const LedgerRow& row) {
  std::string out = row.text.empty() ? "unnamed text" : row.text;
  if (row.chunks && row.ctx) out += fmt::format(", {} chunks of {} tokens", *row.chunks, *row.ctx);
  if (row.tokens) out += fmt::format(", {} scored", format_number(static_cast<double>(*row.tokens)));
  return out;
}

std::vector<std::string> in_short(const Report& report, const TextGroup& group) {
  std::vector<std::string> sentences;
  const Point* base = nullptr;
  for (const int index : group.distinct) {
    const Point& point = report.at(index);
    if (point.family == Family::base && point.row.bytes) base = &point;
  }
  if (!group.paired) return sentences;
  const Point* last = base;
  for (const double loss : {0.01, 0.05, 0.25, 1.0}) {
    const Point* smallest = nullptr;
    for (const int index : group.distinct) {
      const Point& point = report.at(index);
      const auto ln_ratio = chain::metric_ln_ratio().value(point.row);
      if (!ln_ratio || !point.row.bytes || *ln_ratio > std::log1p(loss)) continue;
      if (!smallest || std::pair(*point.row.bytes, *ln_ratio) < std::pair(*smallest->row.bytes, *chain::metric_ln_ratio().value(smallest->row)))
        smallest = &point;
    }
    if (!smallest || smallest == last || smallest->family == Family::base) continue;
    last = smallest;
    std::string sentence = fmt::format("{} the base's perplexity: {}, {}", loss < 1 ? fmt::format("Within {:.0f} % of", 100 * loss) : "Within twice",
                                       smallest->label, format_bytes(static_cast<double>(*smallest->row.bytes)));
    if (base && *base->row.bytes > 0) {
      const double saved = 100 - 100 * static_cast<double>(*smallest->row.bytes) / static_cast<double>(*base->row.bytes);
      sentence += saved >= 0 ? fmt::format(" ({:.0f} % smaller)", saved) : fmt::format(" ({:.0f} % larger)", -saved);
    }
    sentences.push_back(sentence + fmt::format(", perplexity {}.", format_ratio(*chain::metric_ln_ratio().value(smallest->row))));
  }
  return sentences;
}

}  // namespace frugal::eval
