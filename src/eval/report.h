// What a ledger says, drawn: quality against size, decode rate and memory, the Pareto front marked, and a table.
//
// Only what may be compared shares a plot or a table (chain/ledger_metrics.h): one section for each base model and text,
// and in it one plot of rate and one of memory for each machine. Of equal evaluations the newest is shown.
#pragma once

#include <string>
#include <vector>

#include "chain/ledger.h"

namespace frugal::eval {

// One page that needs no network and no other file: plots, tooltips, a table that sorts, print and dark styles.
std::string report_html(const std::vector<chain::LedgerRow>& rows);

// The plots alone as one SVG 1.1 document, for a README.
std::string report_svg(const std::vector<chain::LedgerRow>& rows);

// The same table as Markdown, aligned for a terminal.
std::string report_table(const std::vector<chain::LedgerRow>& rows);

}  // namespace frugal::eval
