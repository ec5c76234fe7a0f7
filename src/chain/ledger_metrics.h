// What of a ledger may be compared with what, and the best of it.
//
// Size belongs to the model alone. Quality is comparable between rows of one base model scored on the same text with the
// same context and chunks. Rates and memory are comparable on one machine with the same instruction set and threads.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "chain/ledger.h"

namespace frugal::chain {

// An original model with nothing changed at run time, compared with no other.
bool is_base(const LedgerRow& row);
// Whether two rows are about one point, perhaps measured twice or on several machines: the same chain, calibration and settings;
// without a chain, the same weights.
bool same_point(const LedgerRow& a, const LedgerRow& b);

enum class Scope { model, text, machine };  // what must be equal beside the base model

struct Metric {
  const char* id;  // as the field of the row
  Scope scope;
  bool lower_is_better;
  std::optional<double> (*value)(const LedgerRow&);
};

const Metric& metric_ln_ratio();  // paired difference of ln-perplexity to the base; 0 for the base itself
const Metric& metric_ln_perplexity();
const Metric& metric_bytes();
const Metric& metric_decode_tps();
const Metric& metric_peak_rss_bytes();

// Rows with equal keys may be compared in this scope. Fields are separated by a byte that no field holds.
std::string comparison_key(const LedgerRow& row, Scope scope);

// Whether both of the metrics may be compared between two rows.
bool comparable(const LedgerRow& a, const LedgerRow& b, const Metric& x, const Metric& y);

// Indices, ascending, of the rows that no comparable row beats: none is at least as good in both metrics and better in one.
// Rows without either value are left out. O(rows^2).
std::vector<size_t> pareto_front(const std::vector<LedgerRow>& rows, const Metric& x, const Metric& y);

// The evaluations, the newest of each (base, point, text, machine); the order is that of first appearance.
std::vector<LedgerRow> latest_evaluations(const std::vector<LedgerRow>& rows);

// Seconds that the steps of this row's chain took on its machine: the sum over its prefixes of the newest step row, since a
// shared prefix is run once. Absent when a step has no row.
std::optional<double> seconds_to_make(const LedgerRow& row, const std::vector<LedgerRow>& rows);

}  // namespace frugal::chain
