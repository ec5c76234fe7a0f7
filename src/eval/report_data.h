// A ledger arranged for a report: points with a label and a family, grouped by what may be compared.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "chain/ledger_metrics.h"

namespace frugal::eval {

enum class Family { base, quantize, prune, lowrank, mixed, other };
const char* family_name(Family family);  // as in a CSS class: "quantize"

struct Point {
  chain::LedgerRow row;
  int id = 0;  // 1-based, in the order of the ledger; one for all plots and tables of the report
  Family family = Family::base;
  std::string label;  // short chain, not escaped
  std::optional<double> seconds_to_make;
  bool on_size_front = false, on_rate_front = false, on_memory_front = false;
};

struct MachineGroup {
  chain::Machine machine;
  std::vector<int> points;  // indices into Report::points
};

// Rows of one base model scored on one text in one way.
struct TextGroup {
  bool paired = false;        // some point has a paired difference to the base; else perplexity is shown
  std::vector<int> points;    // indices into Report::points, never empty; the first names model, text, ctx and chunks
  std::vector<int> distinct;  // one for each chain, the newest, whatever the machine: for quality against size
  std::vector<MachineGroup> machines;
};

struct Report {
  std::vector<Point> points;
  std::vector<TextGroup> groups;

  const Point& at(int index) const { return points[static_cast<size_t>(index)]; }
};

Report arrange(const std::vector<chain::LedgerRow>& rows);

// The same as JSON, for a page that draws it itself: {"rows": [...], "groups": [...]}, a row for each point in their order, a group named by
// its place in the list. What was not measured is absent, texts are clean().
Json report_json(const Report& report);

// The quality that a group is drawn by: paired difference, or ln-perplexity where nothing is paired.
const chain::Metric& quality_metric(const TextGroup& group);

std::string describe_machine(const chain::Machine& machine);  // "Intel Xeon, avx512, 2 of 4 threads, 24 GB"; not escaped
std::string describe_text(const chain::LedgerRow& row);       // "evaluation.txt, 16 chunks of 512 tokens, 4,096 scored"; not escaped

// The smallest model within each of a few losses of quality, as sentences (not escaped).
std::vector<std::string> in_short(const Report& report, const TextGroup& group);

}  // namespace frugal::eval
