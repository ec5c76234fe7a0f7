#include "eval/report_data.h"
#include "eval/report_text.h"

namespace frugal::eval {
namespace {

Json cleaned(const std::vector<std::string>& texts) {
  Json list = Json::array();
  for (const std::string& text : texts) list.push_back(clean(text));
  return list;
}

Json to_json(const Point& point) {
  const chain::LedgerRow& row = point.row;
  Json json = {{"name", clean(row.name, 60)},
               {"label", clean(point.label, 120)},
               {"model", clean(row.model, 120)},
               {"family", family_name(point.family)},
               {"chain", cleaned(row.chain)},
               {"runtime", cleaned(row.runtime)},
               {"time", clean(row.time, 30)},
               {"notes", clean(row.notes)},
               {"front", {{"size", point.on_size_front}, {"rate", point.on_rate_front}, {"memory", point.on_memory_front}}}};
  const auto put = [&](const char* key, const auto& value) {
    if (value) json[key] = *value;
  };
  put("bytes", row.bytes);
  put("bits_per_weight", row.bits_per_weight);
  put("perplexity", row.perplexity);
  put("perplexity_stderr", row.perplexity_stderr);
  put("ln_perplexity", row.ln_perplexity);
  put("ln_ratio", chain::metric_ln_ratio().value(row));
  put("ln_ratio_stderr", row.ln_ratio_stderr);
  put("kl_mean", row.kl_mean);
  put("top1_agreement", row.top1_agreement);
  put("prefill_tps", row.prefill_tps);
  put("decode_tps", row.decode_tps);
  put("peak_rss_bytes", row.peak_rss_bytes);
  put("energy_joules", row.energy_joules);
  put("seconds_to_make", point.seconds_to_make);
  json["tasks"] = Json::object();
  for (const auto& [task, score] : row.tasks) json["tasks"][clean(task, 30)] = score;
  return json;
}

}  // namespace

Json report_json(const Report& report) {
  Json rows = Json::array(), groups = Json::array();
  for (const Point& point : report.points) rows.push_back(to_json(point));
  for (const TextGroup& group : report.groups) {
    Json machines = Json::array();
    for (size_t i = 0; i < group.machines.size(); ++i) {
      machines.push_back(clean(describe_machine(group.machines[i].machine)));
      for (const int index : group.machines[i].points) rows[static_cast<size_t>(index)]["machine"] = i;
    }
    for (const int index : group.points) {
      rows[static_cast<size_t>(index)]["group"] = groups.size();
      rows[static_cast<size_t>(index)]["newest"] = false;  // of its chain, whatever the machine: the one for quality against size
    }
    for (const int index : group.distinct) rows[static_cast<size_t>(index)]["newest"] = true;
    groups.push_back({{"model", clean(report.at(group.points.front()).row.model, 120)},
                      {"text", clean(describe_text(report.at(group.points.front()).row))},
                      {"paired", group.paired},
                      {"machines", machines},
                      {"in_short", cleaned(in_short(report, group))}});
  }
  return {{"rows", rows}, {"groups", groups}};
}

}  // namespace frugal::eval
