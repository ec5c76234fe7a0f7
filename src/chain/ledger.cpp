#include "chain/ledger.h"

#include <cmath>
#include <limits>
#include <utility>

#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"

namespace frugal::chain {
namespace {

constexpr int64_t kSchema = 1;
constexpr std::string_view kLineBegin = "{\"schema\"";
constexpr int64_t kMaxCount = int64_t{1} << 62;
constexpr double kMaxNumber = 1e18;  // no quantity of ours is as large, and pictures of larger ones overflow
constexpr size_t kMaxLedgerBytes = size_t{256} << 20;
constexpr JsonLimits kRowLimits{size_t{1} << 20, 8};

// The one list of the plain fields: writing and reading both walk it.
template <typename T>
struct Field {
  const char* key;
  T LedgerRow::*member;
};

constexpr Field<std::string> kTexts[] = {
    {"time", &LedgerRow::time},           {"name", &LedgerRow::name},
    {"model", &LedgerRow::model},         {"model_hash", &LedgerRow::model_hash},
    {"base_hash", &LedgerRow::base_hash}, {"text", &LedgerRow::text},
    {"text_hash", &LedgerRow::text_hash}, {"version", &LedgerRow::version},
    {"notes", &LedgerRow::notes},         {"calibration", &LedgerRow::calibration},
};
constexpr Field<std::vector<std::string>> kLists[] = {
    {"chain", &LedgerRow::chain},
    {"leaves", &LedgerRow::leaves},
    {"runtime", &LedgerRow::runtime},
};
constexpr Field<std::optional<int64_t>> kCounts[] = {
    {"bytes", &LedgerRow::bytes},
    {"parameters", &LedgerRow::parameters},
    {"ctx", &LedgerRow::ctx},
    {"chunks", &LedgerRow::chunks},
    {"tokens", &LedgerRow::tokens},
    {"peak_rss_bytes", &LedgerRow::peak_rss_bytes},
    {"step_peak_rss_bytes", &LedgerRow::step_peak_rss_bytes},
};
constexpr Field<std::optional<double>> kNumbers[] = {
    {"bits_per_weight", &LedgerRow::bits_per_weight},
    {"ln_perplexity", &LedgerRow::ln_perplexity},
    {"perplexity", &LedgerRow::perplexity},
    {"perplexity_stderr", &LedgerRow::perplexity_stderr},
    {"ln_ratio", &LedgerRow::ln_ratio},
    {"ln_ratio_stderr", &LedgerRow::ln_ratio_stderr},
    {"kl_mean", &LedgerRow::kl_mean},
    {"top1_agreement", &LedgerRow::top1_agreement},
    {"prefill_tps", &LedgerRow::prefill_tps},
    {"decode_tps", &LedgerRow::decode_tps},
    {"step_seconds", &LedgerRow::step_seconds},
    {"energy_joules", &LedgerRow::energy_joules},
};

Json machine_to_json(const Machine& machine) {
  return Json{{"cpu", machine.cpu},     {"isa", machine.isa},         {"host", machine.host},
              {"cores", machine.cores}, {"threads", machine.threads}, {"memory_bytes", machine.memory_bytes}};
}

Machine machine_from_json(const JsonObject& object) {
  Machine machine;
  machine.cpu = object.text("cpu");
  machine.isa = object.text("isa");
  machine.host = object.text("host");
  machine.cores = object.integer("cores", 0, kMaxCount);
  machine.threads = object.integer("threads", 0, kMaxCount);
  machine.memory_bytes = object.integer("memory_bytes", 0, kMaxCount);
  return machine;
}

}  // namespace

std::string to_json_line(const LedgerRow& row) {
  FRUGAL_ASSERT(row.leaves.size() == row.chain.size());
  Json json{{"schema", kSchema}, {"kind", row.kind == RowKind::step ? "step" : "eval"}};
  for (const auto& [key, member] : kTexts) json[key] = row.*member;
  for (const auto& [key, member] : kLists) json[key] = row.*member;
  json["machine"] = machine_to_json(row.machine);
  for (const auto& [key, member] : kCounts) {
    if (row.*member) json[key] = *(row.*member);
  }
  for (const auto& [key, member] : kNumbers) {
    if (const auto& value = row.*member; value && std::isfinite(*value)) json[key] = *value;
  }
  Json tasks = Json::object();
  for (const auto& [task, score] : row.tasks) {
    if (std::isfinite(score)) tasks[task] = score;
  }
  json["tasks"] = std::move(tasks);
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

LedgerRow parse_row(std::string_view line, std::string_view name) {
  const Json json = parse_json(line, name, kRowLimits);
  const JsonObject object(json, std::string(name));
  if (const int64_t schema = object.integer("schema", 1, kMaxCount); schema > kSchema) {
    fail(ErrorKind::unsupported, "{}: a row of schema {}, written by a newer frugal; this one reads up to {}", name, schema, kSchema);
  }
  LedgerRow row;
  const std::string kind = object.text("kind");
  if (kind != "step" && kind != "eval") object.fail_at("kind", "must be \"step\" or \"eval\"");
  row.kind = kind == "step" ? RowKind::step : RowKind::eval;
  for (const auto& [key, member] : kTexts) row.*member = object.text_or(key, "");
  for (const auto& [key, member] : kLists) {
    if (object.has(key)) row.*member = object.texts(key);
  }
  if (row.leaves.size() != row.chain.size()) object.fail_at("leaves", "must name one leaf for each step of the chain");
  row.machine = machine_from_json(object.object("machine"));
  for (const auto& [key, member] : kCounts) {
    if (object.has(key)) row.*member = object.integer(key, 0, kMaxCount);
  }
  for (const auto& [key, member] : kNumbers) {
    if (object.has(key)) row.*member = object.number(key, -kMaxNumber, kMaxNumber);
  }
  if (object.has("tasks")) {
    const JsonObject tasks = object.object("tasks");
    for (const auto& [task, score] : tasks.json().items()) row.tasks[task] = tasks.number(task, -kMaxNumber, kMaxNumber);
  }
  return row;
}

LedgerContents read_ledger(const std::string& path) {
  const std::string content = read_text_file(path, kMaxLedgerBytes);
  LedgerContents result;
  size_t begin = 0;
  for (int64_t number = 1; begin < content.size(); ++number) {
    const size_t end = content.find('\n', begin);
    if (end == content.npos) {
      log_info("{}:{}: a cut last line of {} bytes is ignored", path, number, content.size() - begin);
      break;
    }
    const std::string where = fmt::format("{}:{}", path, number);
    try {
      result.rows.push_back(parse_row(std::string_view(content).substr(begin, end - begin), where));
    } catch (const Error& error) {
      log_warning("line skipped: {}", error.what());
      result.problems.push_back(error.what());
    }
    begin = end + 1;
  }
  return result;
}

LedgerContents read_ledgers(const std::vector<std::string>& paths) {
  LedgerContents all;
  for (const std::string& path : paths) {
    LedgerContents one = read_ledger(path);
    all.rows.insert(all.rows.end(), std::make_move_iterator(one.rows.begin()), std::make_move_iterator(one.rows.end()));
    all.problems.insert(all.problems.end(), one.problems.begin(), one.problems.end());
  }
  return all;
}

void Ledger::append(LedgerRow row) const {
  if (row.time.empty()) row.time = utc_timestamp(system_clock().unix_time());
  append_line(path_, to_json_line(row), kLineBegin);
}

}  // namespace frugal::chain
