#include "train/run_log.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>

#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"

namespace frugal::train {
namespace fs = std::filesystem;
namespace {

constexpr size_t kMaxLogBytes = size_t{1} << 30;
constexpr std::string_view kLineBegin = "{\"current_steps\":";

// CRC-32C, as TFRecord wants it.
uint32_t crc32c(std::string_view bytes) {
  static const auto table = [] {
    std::array<uint32_t, 256> t{};
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t c = i;
      for (int k = 0; k < 8; ++k) c = c & 1 ? 0x82F63B78u ^ (c >> 1) : c >> 1;
      t[i] = c;
    }
    return t;
  }();
  uint32_t crc = ~0u;
  for (const char c : bytes) crc = table[(crc ^ static_cast<uint8_t>(c)) & 255] ^ (crc >> 8);
  return ~crc;
}

template <typename T>
void append_number(std::string& out, T value) {
  static_assert(std::endian::native == std::endian::little);
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

// Protocol buffers by hand: the few fields of tensorflow.Event that scalars need.
void append_varint(std::string& out, uint64_t value) {
  for (; value >= 128; value >>= 7) out += static_cast<char>(value | 128);
  out += static_cast<char>(value);
}
void append_bytes(std::string& out, int field, std::string_view bytes) {
  append_varint(out, static_cast<uint64_t>(field) << 3 | 2);
  append_varint(out, bytes.size());
  out += bytes;
}
std::string event(int64_t step) {
  std::string out;
  append_varint(out, 1 << 3 | 1);  // wall_time, double
  append_number(out, static_cast<double>(system_clock().unix_time()));
  append_varint(out, 2 << 3);  // step, varint
  append_varint(out, static_cast<uint64_t>(step));
  return out;
}
std::string scalar_value(std::string_view tag, double value) {
  std::string out;
  append_bytes(out, 1, tag);
  append_varint(out, 2 << 3 | 5);  // simple_value, float
  append_number(out, static_cast<float>(value));
  return out;
}

std::string host_name() {
  char name[256] = "localhost";
  ::gethostname(name, sizeof name - 1);
  return name;
}

// Every complete line, as it is and as an object whose path has its number.
void for_each_line(const std::string& path, const std::function<void(std::string_view line, const JsonObject& row)>& use) {
  const std::string text = read_text_file(path, kMaxLogBytes);
  int64_t number = 1;
  for (size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1, ++number) {
    const std::string_view line = std::string_view(text).substr(begin, end - begin);
    const std::string where = fmt::format("{}:{}", path, number);
    const Json row = parse_json(line, where);
    use(line, JsonObject(row, where));
  }
}

// Complete lines of at most `last_step`.
std::string kept_lines(const std::string& path, int64_t last_step) {
  std::string kept;
  for_each_line(path, [&](std::string_view line, const JsonObject& row) {
    if (row.integer("current_steps", 0, INT64_MAX) <= last_step) kept.append(line).push_back('\n');
  });
  return kept;
}

// "1:02:03" as seconds.
double seconds_of(const JsonObject& row, std::string_view key) {
  const std::string text = row.text(key);
  int64_t seconds = 0;
  const char *at = text.data(), *end = at + text.size();
  for (int part = 0; part < 3; ++part) {
    int64_t value = 0;
    const auto [rest, error] = std::from_chars(at, end, value);
    const bool ends = part == 2 ? rest == end : rest != end && *rest == ':';
    if (error != std::errc() || !ends || value < 0 || value > (part == 0 ? int64_t{1} << 40 : 59)) row.fail_at(key, "must be hours:minutes:seconds");
    seconds = seconds * 60 + value;
    at = rest + 1;
  }
  return static_cast<double>(seconds);
}

// Names that line() writes; others are metrics.
constexpr std::string_view kFields[] = {"current_steps", "total_steps",    "loss",       "lr",           "epoch",          "grad_norm",
                                        "eval_loss",     "skipped",        "percentage", "elapsed_time", "remaining_time", "throughput",
                                        "total_tokens",  "peak_rss_bytes", "mfu"};

LogRow row_of(const JsonObject& object) {
  LogRow row;
  const auto number = [&](std::string_view key) {
    if (!object.json().contains(key)) object.fail_at(key, "is missing");
    return object.has(key) ? object.number(key, -1e300, 1e300) : std::numeric_limits<double>::quiet_NaN();
  };
  row.step = object.integer("current_steps", 0, INT64_MAX);
  row.total_steps = object.integer("total_steps", 0, INT64_MAX);
  row.loss = number("loss");
  row.learning_rate = number("lr");
  row.epoch = number("epoch");
  row.grad_norm = number("grad_norm");
  row.has_eval = object.json().contains("eval_loss");
  if (row.has_eval) row.eval_loss = number("eval_loss");
  row.skipped = object.boolean_or("skipped", false);
  row.elapsed_seconds = seconds_of(object, "elapsed_time");
  row.remaining_seconds = seconds_of(object, "remaining_time");
  row.tokens_per_second = number("throughput");
  row.tokens = object.integer("total_tokens", 0, INT64_MAX);
  row.peak_rss_bytes = static_cast<uint64_t>(object.integer("peak_rss_bytes", 0, INT64_MAX));
  if (object.has("mfu")) row.mfu = number("mfu");
  for (const auto& [key, value] : object.json().items()) {
    if (std::find(std::begin(kFields), std::end(kFields), key) == std::end(kFields)) row.metrics[key] = number(key);
  }
  return row;
}

}  // namespace

Json LogRow::line() const {
  const auto whole = [](double seconds) {
    const auto s = static_cast<int64_t>(std::max(0.0, seconds));
    return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
  };
  Json row = {{"current_steps", step}, {"total_steps", total_steps}, {"loss", loss}, {"lr", learning_rate}, {"epoch", epoch}, {"grad_norm", grad_norm}};
  if (has_eval) row["eval_loss"] = eval_loss;
  if (skipped) row["skipped"] = true;
  row.update(metrics);
  row["percentage"] = total_steps > 0 ? std::round(1e4 * static_cast<double>(step) / static_cast<double>(total_steps)) / 100 : 0.0;
  row["elapsed_time"] = whole(elapsed_seconds);
  row["remaining_time"] = whole(remaining_seconds);
  row["throughput"] = tokens_per_second;
  row["total_tokens"] = tokens;
  row["peak_rss_bytes"] = peak_rss_bytes;
  if (mfu) row["mfu"] = *mfu;
  return row;
}

Json LogRow::history() const {
  Json row = {{"step", step}, {"epoch", epoch}, {"loss", loss}, {"grad_norm", grad_norm}, {"learning_rate", learning_rate}};
  if (has_eval) row["eval_loss"] = eval_loss;
  if (skipped) row["skipped"] = true;
  row.update(metrics);
  return row;
}

Json LogRow::numbers() const {
  return {{"loss", loss},
          {"grad_norm", grad_norm},
          {"learning_rate", learning_rate},
          {"tokens_per_second", tokens_per_second},
          {"tokens", tokens},
          {"mfu", mfu ? Json(*mfu) : Json()},
          {"skipped", skipped},
          {"metrics", metrics}};
}

LogRow LogRow::of_numbers(const JsonObject& numbers) {
  LogRow row;
  const auto number = [&](const char* name) { return numbers.has(name) ? numbers.number(name, -1e300, 1e300) : std::numeric_limits<double>::quiet_NaN(); };
  row.loss = number("loss");
  row.grad_norm = number("grad_norm");
  row.learning_rate = number("learning_rate");
  row.tokens_per_second = number("tokens_per_second");
  row.tokens = numbers.integer("tokens", 0, INT64_MAX);
  if (numbers.has("mfu")) row.mfu = number("mfu");
  row.skipped = numbers.boolean_or("skipped", false);
  row.metrics = numbers.object("metrics").json();
  return row;
}

std::vector<LogRow> read_run_log(const std::string& path) {
  std::vector<LogRow> rows;
  for_each_line(path, [&](std::string_view, const JsonObject& object) {
    LogRow row = row_of(object);
    if (!rows.empty() && row.step <= rows.back().step) object.fail_at("current_steps", fmt::format("must be after {}, is {}", rows.back().step, row.step));
    rows.push_back(std::move(row));
  });
  return rows;
}

// One file of TFRecords a process, as TensorBoard expects: {length, CRC of it, bytes, CRC of them}.
struct RunLog::Events {
  explicit Events(const std::string& output) {
    const std::string folder = output + "/runs";
    fs::create_directories(folder);
    path = fmt::format("{}/events.out.tfevents.{}.{}.{}", folder, system_clock().unix_time(), host_name(), ::getpid());
    file.open(path, std::ios::binary | std::ios::app);
    std::string first = event(0);
    append_bytes(first, 3, "brain.Event:2");
    record(first);
  }
  void record(const std::string& bytes) {
    const auto masked = [](std::string_view part) {
      const uint32_t crc = crc32c(part);
      return ((crc >> 15) | (crc << 17)) + 0xA282EAD8u;
    };
    std::string out;
    append_number(out, static_cast<uint64_t>(bytes.size()));
    append_number(out, masked(out));
    out += bytes;
    append_number(out, masked(bytes));
    file.write(out.data(), static_cast<std::streamsize>(out.size()));
    file.flush();
    const bool written = file.good();
    file.clear();
    if (!written) fail(ErrorKind::io, "cannot write {}", path);
  }
  std::string path;
  std::ofstream file;
};

RunLog::RunLog(std::string output, int64_t resumed_step) : path_(output + "/trainer_log.jsonl") {
  if (fs::exists(path_)) {
    AtomicFile kept(path_);
    if (resumed_step > 0) kept.write(kept_lines(path_, resumed_step));
    kept.commit();
  }
  events_ = std::make_unique<Events>(output);
}
RunLog::~RunLog() = default;

void RunLog::write(const LogRow& row) {
  if (!unwritten_.empty()) unwritten_ += '\n';
  unwritten_ += row.line().dump();
  append_line(path_, unwritten_, kLineBegin);
  unwritten_.clear();
  std::string summary;
  const auto add = [&](std::string_view tag, double value) { append_bytes(summary, 1, scalar_value(tag, value)); };
  add("train/loss", row.loss);
  add("train/grad_norm", row.grad_norm);
  add("train/learning_rate", row.learning_rate);
  add("train/epoch", row.epoch);
  add("train/tokens_per_second", row.tokens_per_second);
  add("train/peak_rss_bytes", static_cast<double>(row.peak_rss_bytes));
  if (row.mfu) add("train/mfu", *row.mfu);
  if (row.has_eval) add("eval/loss", row.eval_loss);
  for (const auto& [name, value] : row.metrics.items()) add("train/" + name, value.get<double>());
  std::string whole = event(row.step);
  append_bytes(whole, 5, summary);
  events_->record(whole);
}

}  // namespace frugal::train
