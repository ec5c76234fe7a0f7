// frugal bench: prefill and decode rates as llama-bench prints them, and the share of the machine's limits.
#include "base/error.h"
#include "base/options.h"
#include "cli/context.h"
#include "cli/resources.h"
#include "eval/speed.h"
#include "kernels/cpu/machine.h"

namespace frugal::cli {
namespace {

struct BenchValues {
  std::string model, prompt = "512", generated = "128", depth = "0";
  std::vector<std::string> pairs;
  int64_t repetitions = 5;
  int64_t ubatch = 512;
  bool exact = false;
};

// "1,2,4", "128-512+128", "128-1024*2": lists and ranges, as llama-bench takes them.
std::vector<int64_t> numbers(const std::string& text, const std::string& what) {
  std::vector<int64_t> result;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t comma = std::min(text.find(',', begin), text.size());
    const std::string item = text.substr(begin, comma - begin);
    const size_t dash = item.find('-'), step = item.find_first_of("+*");
    if (dash == std::string::npos) {
      result.push_back(parse_integer(item, what));
    } else {
      const int64_t first = parse_integer(item.substr(0, dash), what);
      const int64_t last = parse_integer(item.substr(dash + 1, step == std::string::npos ? step : step - dash - 1), what);
      const bool multiply = step != std::string::npos && item[step] == '*';
      const int64_t by = step == std::string::npos ? 1 : parse_integer(item.substr(step + 1), what);
      if (by < (multiply ? 2 : 1) || first < (multiply ? 1 : 0) || last - first > 1'000'000) fail(ErrorKind::invalid_input, "{}: bad range \"{}\"", what, printable(item));
      for (int64_t value = first; value <= last; value = multiply ? value * by : value + by) result.push_back(value);
    }
    begin = comma + 1;
  }
  for (const int64_t value : result) {
    if (value < 0 || value > (int64_t{1} << 24)) fail(ErrorKind::invalid_input, "{} must be in 0..{}, is {}", what, int64_t{1} << 24, value);
  }
  return result;
}

std::vector<eval::SpeedTest> tests_of(const BenchValues& values) {
  std::vector<eval::SpeedTest> tests;
  for (const int64_t depth : numbers(values.depth, "--depth")) {
    const std::string suffix = depth > 0 ? fmt::format(" @ d{}", depth) : "";
    for (const int64_t p : numbers(values.prompt, "-p")) {
      if (p > 0) tests.push_back({fmt::format("pp{}{}", p, suffix), p, 0, depth, values.ubatch});
    }
    for (const int64_t n : numbers(values.generated, "-n")) {
      if (n > 0) tests.push_back({fmt::format("tg{}{}", n, suffix), 0, n, depth, values.ubatch});
    }
    for (const std::string& pair : values.pairs) {
      const std::vector<int64_t> both = numbers(pair, "-pg");
      if (both.size() != 2) fail(ErrorKind::invalid_input, "-pg takes two numbers, prompt,generated");
      tests.push_back({fmt::format("pp{}+tg{}{}", both[0], both[1], suffix), both[0], both[1], depth, values.ubatch});
    }
  }
  if (tests.empty()) fail(ErrorKind::invalid_input, "nothing to measure: -p and -n are both 0");
  return tests;
}

void run(const Context& context, const BenchValues& values) {
  const std::vector<eval::SpeedTest> tests = tests_of(values);
  const nn::LoadedModel loaded = load_model(context, values.model);
  loaded.model->set_execution(values.exact ? nn::Execution::expanded : nn::Execution::packed);
  const kernels::MachineLimits limits = kernels::measure_machine();
  const auto bytes = static_cast<double>(eval::bytes_per_decoded_token(*loaded.model));
  const auto work = static_cast<double>(eval::multiply_adds_per_token(*loaded.model));
  Json rows = Json::array();
  std::string table = "| model | size | params | backend | threads | test | t/s | bandwidth | int8 peak |\n|---|---:|---:|---|---:|---|---:|---:|---:|\n";
  for (const eval::SpeedTest& test : tests) {
    const eval::SpeedResult result = eval::measure_speed(*loaded.model, test, static_cast<int>(values.repetitions));
    const double tps = result.mean(), bandwidth = tps * bytes / limits.read_bandwidth, peak = tps * work / limits.integer_peak;
    const bool decodes = test.prompt == 0, reads = test.generated == 0;
    rows.push_back({{"test", test.name}, {"tps", tps}, {"tps_stddev", result.standard_deviation()}, {"samples_tps", result.tokens_per_second},
                    {"bandwidth_share", decodes ? Json(bandwidth) : Json(nullptr)}, {"peak_share", reads ? Json(peak) : Json(nullptr)},
                    {"threads", context.threads}, {"isa", limits.isa}});
    table += fmt::format("| {} | {:.1f} MB | {:.1f} M | CPU {} | {} | {} | {:.2f} +- {:.2f} | {} | {} |\n", loaded.name,
                         static_cast<double>(loaded.file_bytes) / 1e6, static_cast<double>(loaded.model->original_parameters) / 1e6, limits.isa,
                         context.threads, test.name, tps, result.standard_deviation(), decodes ? fmt::format("{:.0f} %", 100 * bandwidth) : "",
                         reads ? fmt::format("{:.0f} %", 100 * peak) : "");
  }
  if (context.json) {
    print_json(rows);
    return;
  }
  print(table + fmt::format("\nmachine: {:.1f} GB/s read, {:.0f} G int8 multiply-adds/s ({} threads, {})\n", limits.read_bandwidth / 1e9,
                            limits.integer_peak / 1e9, limits.threads, limits.isa));
}

}  // namespace

void add_bench(CLI::App& app, Context& context) {
  const auto values = std::make_shared<BenchValues>();
  new_verb(app, context, "bench", "Measure prefill and decode rates and the share of the machine's limits", [&context, values] { run(context, *values); })
      .text("model,-m,--model,--hf-repo", values->model, "Path or hub name")
      .required()
      .text("-p,--n-prompt", values->prompt, "Prompt tokens: numbers, lists 1,2,4 and ranges a-b+step or a-b*mult")
      .text("-n,--n-gen", values->generated, "Tokens to generate")
      .text("-d,--n-depth", values->depth, "Tokens already in the cache")
      .texts("--prompt-generate", values->pairs, "prompt,generated measured together (-pg)")
      .integer("-r,--repetitions", values->repetitions, 1, 10000, "Repetitions of each test")
      .integer("--ubatch-size", values->ubatch, 1, int64_t{1} << 20, "Most tokens of one forward (-ub)")
      .flag("--exact", values->exact, "Expand the weights to float");
}

}  // namespace frugal::cli
