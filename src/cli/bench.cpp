// frugal bench: prefill and decode rates as llama-bench prints them, and the share of the machine's limits.
#include "base/error.h"
#include "cli/arguments.h"
#include "cli/context.h"
#include "cli/generation.h"
#include "cli/resources.h"
#include "eval/speed.h"
#include "kernels/cpu/machine.h"

namespace frugal::cli {
namespace {

struct BenchValues {
  std::string model, output = "md";
  std::vector<std::string> prompt, generated, depth, pairs, parallel;  // empty: 512, 128, 0, none, 1
  int64_t repetitions = 5;
  int64_t batch = 2048, ubatch = 512;
  CacheValues cache;
  bool exact = false;
};

// An option that may be given several times, each time with a list.
std::vector<int64_t> numbers(const std::vector<std::string>& texts, const std::string& what) {
  std::vector<int64_t> result;
  for (const std::string& text : texts) {
    for (const int64_t value : number_list(text, what, int64_t{1} << 24)) result.push_back(value);
  }
  return result;
}

std::vector<eval::SpeedTest> tests_of(const BenchValues& values) {
  const auto given_or = [](const std::vector<std::string>& given, const char* fallback) { return given.empty() ? std::vector<std::string>{fallback} : given; };
  const int64_t ubatch = std::min(values.batch, values.ubatch);
  const nn::CacheType cache = cache_type(values.cache, values.exact);
  std::vector<eval::SpeedTest> tests;
  for (const int64_t depth : numbers(given_or(values.depth, "0"), "--depth")) {
    for (const int64_t streams : numbers(given_or(values.parallel, "1"), "-npl")) {
      if (streams < 1) fail(ErrorKind::invalid_input, "-npl must be at least 1");
      const std::string suffix = (depth > 0 ? fmt::format(" @ d{}", depth) : "") + (streams > 1 ? fmt::format(" x {}", streams) : "");
      const auto add = [&](const std::string& name, int64_t prompt, int64_t generated) {
        if (prompt + generated > 0) tests.push_back({name + suffix, prompt, generated, depth, ubatch, cache, streams});
      };
      for (const int64_t p : numbers(given_or(values.prompt, "512"), "-p")) add(fmt::format("pp{}", p), p, 0);
      for (const int64_t n : numbers(given_or(values.generated, "128"), "-n")) add(fmt::format("tg{}", n), 0, n);
      for (const std::string& pair : values.pairs) {
        const std::vector<int64_t> both = numbers({pair}, "-pg");
        if (both.size() != 2) fail(ErrorKind::invalid_input, "-pg takes two numbers, prompt,generated");
        add(fmt::format("pp{}+tg{}", both[0], both[1]), both[0], both[1]);
      }
    }
  }
  if (tests.empty()) fail(ErrorKind::invalid_input, "nothing to measure: -p and -n are both 0");
  return tests;
}

// Markdown as llama-bench prints it; csv, jsonl and sql have the keys of the JSON rows as columns.
std::string markdown(const Json& rows) {
  const auto share = [](const Json& value) { return value.is_null() ? "" : fmt::format("{:.0f} %", 100 * value.get<double>()); };
  std::string out = "| model | size | params | backend | threads | test | t/s | bandwidth | integer peak |\n|---|---:|---:|---|---:|---|---:|---:|---:|\n";
  for (const Json& row : rows) {
    out += fmt::format("| {} | {:.1f} MB | {:.1f} M | CPU {} | {} | {} | {:.2f} ± {:.2f} | {} | {} |\n", row["model"].get<std::string>(),
                       row["size"].get<double>() / 1e6, row["params"].get<double>() / 1e6, row["isa"].get<std::string>(), row["threads"].get<int64_t>(),
                       row["test"].get<std::string>(), row["tps"].get<double>(), row["tps_stddev"].get<double>(), share(row["bandwidth_share"]),
                       share(row["peak_share"]));
  }
  return out;
}

// A value between quotes, each quote within doubled: what CSV and SQL agree on.
std::string quoted(const Json& value, char quote) {
  if (value.is_null()) return quote == '\'' ? "NULL" : "";
  const std::string text = value.is_string() ? value.get<std::string>() : value.dump();
  if (value.is_number()) return text;
  std::string out(1, quote);
  for (const char c : text) out.append(c == quote ? 2 : 1, c);
  return out + quote;
}

std::string formatted(const Json& rows, const std::string& format) {
  if (format == "json") return rows.dump(2) + "\n";
  if (format == "md") return markdown(rows);
  std::string out;
  if (format == "jsonl") {
    for (const Json& row : rows) out += row.dump() + "\n";
    return out;
  }
  std::vector<std::string> keys;
  for (const auto& [key, value] : rows.front().items()) keys.push_back(key);
  const bool sql = format == "sql";
  out = sql ? fmt::format("CREATE TABLE IF NOT EXISTS frugal_bench ({});\n", fmt::join(keys, ", ")) : fmt::format("{}\n", fmt::join(keys, ","));
  for (const Json& row : rows) {
    std::vector<std::string> cells;
    for (const std::string& key : keys) cells.push_back(quoted(row[key], sql ? '\'' : '"'));
    out += sql ? fmt::format("INSERT INTO frugal_bench ({}) VALUES ({});\n", fmt::join(keys, ", "), fmt::join(cells, ", "))
               : fmt::format("{}\n", fmt::join(cells, ","));
  }
  return out;
}

void run(Context& context, const BenchValues& values) {
  const std::vector<eval::SpeedTest> tests = tests_of(values);
  const nn::LoadedModel loaded = load_model(context, values.model, values.exact ? nn::Execution::expanded : nn::Execution::packed);
  const auto bytes = static_cast<double>(eval::bytes_per_decoded_token(*loaded.model));
  const eval::MultiplyAdds work = eval::multiply_adds_per_token(*loaded.model);
  Json rows = Json::array();
  std::string machines;
  for (const int64_t threads : context.thread_counts) {
    use_threads(context, threads);
    const kernels::MachineLimits limits = kernels::measure_machine();
    machines += fmt::format("machine: {:.1f} GB/s read, {:.0f} G multiply-adds/s of 8-bit weights, {:.0f} of 4-bit ones ({} threads, {})\n",
                            limits.read_bandwidth / 1e9, limits.integer_peak / 1e9, limits.integer_peak_4bit / 1e9, limits.threads, limits.isa);
    const double seconds_at_peak = static_cast<double>(work.up_to_4_bits) / limits.integer_peak_4bit + static_cast<double>(work.wider) / limits.integer_peak;
    for (const eval::SpeedTest& test : tests) {
      const eval::SpeedResult result = eval::measure_speed(*loaded.model, test, static_cast<int>(values.repetitions));
      const double tps = result.mean();
      const bool decodes = test.prompt == 0, reads = test.generated == 0;
      rows.push_back({{"model", loaded.name},
                      {"size", loaded.file_bytes},
                      {"params", loaded.model->original_parameters},
                      {"isa", limits.isa},
                      {"threads", context.threads},
                      {"test", test.name},
                      {"tps", tps},
                      {"tps_stddev", result.standard_deviation()},
                      {"samples_tps", result.tokens_per_second},
                      {"bandwidth_share", decodes ? Json(tps / static_cast<double>(test.streams) * bytes / limits.read_bandwidth) : Json(nullptr)},
                      {"peak_share", reads && !values.exact ? Json(tps * seconds_at_peak) : Json(nullptr)}});
    }
  }
  const std::string format = context.json ? "json" : values.output;
  print(formatted(rows, format) + (format == "md" ? "\n" + machines : ""));
}

}  // namespace

void add_bench(CLI::App& app, Context& context) {
  const auto values = std::make_shared<BenchValues>();
  Verb verb =
      new_verb(app, context, "bench", "Measure prefill and decode rates and the share of the machine's limits", [&context, values] { run(context, *values); });
  verb.text("model,-m,--model,--hf-repo", values->model, "Path or hub name")
      .required()
      .texts("-p,--n-prompt", values->prompt, "Prompt tokens: numbers, lists 1,2,4 and ranges a-b+step or a-b*mult; repeatable (default 512)")
      .texts("-n,--n-gen", values->generated, "Tokens to generate (default 128)")
      .texts("-d,--n-depth", values->depth, "Tokens already in the cache (default 0)")
      .texts("--prompt-generate", values->pairs, "prompt,generated measured together (-pg)")
      .texts("--n-parallel", values->parallel, "Sequences that are decoded together, rates of all together (-npl; default 1)")
      .integer("-r,--repetitions", values->repetitions, 1, 10000, "Repetitions of each test")
      .integer("-b,--batch-size", values->batch, 1, int64_t{1} << 20, "Most tokens of one forward")
      .integer("--ubatch-size", values->ubatch, 1, int64_t{1} << 20, "The same (-ub); the smaller one counts")
      .choice("-o,--output", values->output, {"md", "json", "jsonl", "csv", "sql"}, "How the rows are printed")
      .flag("--exact", values->exact, "Expand the weights to float");
  add_cache_options(verb, values->cache);
}

}  // namespace frugal::cli
