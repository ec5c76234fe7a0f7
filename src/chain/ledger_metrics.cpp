#include "chain/ledger_metrics.h"

#include <unordered_map>

#include "base/error.h"

namespace frugal::chain {
namespace {

// Each part behind its length: no text that a field can hold makes two different lists equal.
std::string joined(const std::vector<std::string>& parts) {
  std::string out;
  for (const std::string& part : parts) out += fmt::format("{}:{}", part.size(), part);
  return out;
}

std::optional<double> as_double(const std::optional<int64_t>& value) { return value ? std::optional<double>(static_cast<double>(*value)) : std::nullopt; }

std::string count_text(const std::optional<int64_t>& value) { return value ? fmt::format("{}", *value) : "-"; }

std::string point_key(const LedgerRow& row) {
  return joined({joined(row.chain), joined(row.runtime), row.calibration, row.chain.empty() ? row.model_hash : std::string()});
}

}  // namespace

bool is_base(const LedgerRow& row) { return row.chain.empty() && row.runtime.empty() && row.model_hash == row.base_hash; }

bool same_point(const LedgerRow& a, const LedgerRow& b) { return point_key(a) == point_key(b); }

const Metric& metric_ln_ratio() {
  static constexpr Metric metric{"ln_ratio", Scope::text, true, [](const LedgerRow& row) {
                                   return row.ln_ratio || !is_base(row) || !row.ln_perplexity ? row.ln_ratio : std::optional<double>(0.0);
                                 }};
  return metric;
}
const Metric& metric_ln_perplexity() {
  static constexpr Metric metric{"ln_perplexity", Scope::text, true, [](const LedgerRow& row) { return row.ln_perplexity; }};
  return metric;
}
const Metric& metric_bytes() {
  static constexpr Metric metric{"bytes", Scope::model, true, [](const LedgerRow& row) { return as_double(row.bytes); }};
  return metric;
}
const Metric& metric_decode_tps() {
  static constexpr Metric metric{"decode_tps", Scope::machine, false, [](const LedgerRow& row) { return row.decode_tps; }};
  return metric;
}
const Metric& metric_peak_rss_bytes() {
  static constexpr Metric metric{"peak_rss_bytes", Scope::machine, true, [](const LedgerRow& row) { return as_double(row.peak_rss_bytes); }};
  return metric;
}

std::string comparison_key(const LedgerRow& row, Scope scope) {
  switch (scope) {
    case Scope::model: return joined({row.base_hash});
    case Scope::text: return joined({row.base_hash, row.text_hash, count_text(row.ctx), count_text(row.chunks)});
    case Scope::machine: {
      const Machine& m = row.machine;
      return joined({row.base_hash, m.host, m.cpu, m.isa, fmt::format("{} {} {}", m.cores, m.threads, m.memory_bytes)});
    }
  }
  FRUGAL_ASSERT(false);
  return {};
}

bool comparable(const LedgerRow& a, const LedgerRow& b, const Metric& x, const Metric& y) {
  return comparison_key(a, x.scope) == comparison_key(b, x.scope) && comparison_key(a, y.scope) == comparison_key(b, y.scope);
}

std::vector<size_t> pareto_front(const std::vector<LedgerRow>& rows, const Metric& x, const Metric& y) {
  struct Candidate {
    size_t index;
    double x, y;  // lower is better
    std::string key;
  };
  std::vector<Candidate> candidates;
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto vx = x.value(rows[i]);
    const auto vy = y.value(rows[i]);
    if (!vx || !vy) continue;
    candidates.push_back(
        {i, x.lower_is_better ? *vx : -*vx, y.lower_is_better ? *vy : -*vy, comparison_key(rows[i], x.scope) + "|" + comparison_key(rows[i], y.scope)});
  }
  std::vector<size_t> front;
  for (const Candidate& a : candidates) {
    bool beaten = false;
    for (const Candidate& b : candidates) {
      beaten = beaten || (b.key == a.key && b.x <= a.x && b.y <= a.y && (b.x < a.x || b.y < a.y));
    }
    if (!beaten) front.push_back(a.index);
  }
  return front;
}

std::vector<LedgerRow> latest_evaluations(const std::vector<LedgerRow>& rows) {
  std::vector<LedgerRow> latest;
  std::unordered_map<std::string, size_t> places;
  for (const LedgerRow& row : rows) {
    if (row.kind != RowKind::eval) continue;
    const std::string key = joined({point_key(row), comparison_key(row, Scope::text), comparison_key(row, Scope::machine)});
    const auto [place, is_new] = places.emplace(key, latest.size());
    if (is_new) {
      latest.push_back(row);
    } else if (row.time >= latest[place->second].time) {  // equal times: the later line
      latest[place->second] = row;
    }
  }
  return latest;
}

std::optional<double> seconds_to_make(const LedgerRow& row, const std::vector<LedgerRow>& rows) {
  const std::string machine = comparison_key(row, Scope::machine);
  double seconds = 0;
  std::vector<std::string> prefix;
  for (const std::string& step : row.chain) {
    prefix.push_back(step);
    const LedgerRow* newest = nullptr;
    for (const LedgerRow& other : rows) {
      const bool is_it = other.kind == RowKind::step && other.step_seconds && other.chain == prefix && comparison_key(other, Scope::machine) == machine;
      if (is_it && (!newest || other.time >= newest->time)) newest = &other;
    }
    if (!newest) return std::nullopt;
    seconds += *newest->step_seconds;
  }
  return seconds;
}

}  // namespace frugal::chain
