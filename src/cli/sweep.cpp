// frugal sweep: many chains over one model, each written, evaluated in a process of its own against the base, and drawn.
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <set>

#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/progress.h"
#include "chain/ledger_metrics.h"
#include "cli/compression.h"
#include "cli/context.h"
#include "cli/recipe.h"
#include "cli/resources.h"
#include "eval/report.h"

extern char** environ;

namespace frugal::cli {
namespace {
namespace fs = std::filesystem;

struct SweepValues {
  std::string model, recipe, output;
  double tolerance = 0.10;
  bool keep_models = false;
};

// Runs this program and waits. Its messages go to our stderr, its results nowhere (they are in the ledger).
void run_self(const Context& context, std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), context.program);
  arguments.insert(arguments.end(), {"-t", std::to_string(context.threads), "--log-level", context.log_level});
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
  pid_t child = 0;
  const int code = posix_spawn(&child, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (code != 0) fail(ErrorKind::io, "cannot start {}: {}", context.program, std::strerror(code));
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {}
  stop_point();
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    fail(ErrorKind::internal, "the evaluation `{}` failed (status {})", fmt::join(arguments, " "), status);
  }
}

std::string file_name_of(const std::string& label) {
  std::string name;
  for (const char c : label) name += std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '.' ? c : '_';
  return name;
}

class Sweep {
 public:
  Sweep(const Context& context, const SweepValues& values)
      : context_(context),
        values_(values),
        recipe_(read_recipe(values.recipe)),
        ledger_((fs::path(values.output) / "ledger.jsonl").string()),
        logits_((fs::path(values.output) / "base-logits.tmp").string()),
        cache_(std::make_shared<chain::CalibrationCache>()) {}
  ~Sweep() {
    std::error_code code;
    fs::remove(logits_, code);
  }
  Sweep(const Sweep&) = delete;
  Sweep& operator=(const Sweep&) = delete;

  void run() {
    std::set<std::string> names{".", ".."};
    for (const RecipeChain& chain : recipe_.chains) {
      parsed_.push_back(chain::parse_chain(context_.steps, chain.steps));
      if (!names.insert(file_name_of(chain.name)).second)
        fail(ErrorKind::invalid_input, "{}: two chains would be written as \"{}\"", values_.recipe, file_name_of(chain.name));
    }
    earlier_rows_ = fs::exists(ledger_) ? chain::read_ledger(ledger_).rows.size() : 0;
    fs::create_directories(fs::path(values_.output) / "models");
    model_path_ = resolve_model_path(context_, values_.model);
    const nn::LoadedModel base = context_.loader.load(model_path_);
    base_hash_ = weights_hash(base);
    bool calibrated = false;
    for (const auto& steps : parsed_) calibrated |= needs_calibration(steps);
    if (calibrated) text_ = load_calibration_text(base, recipe_.calibration_file);
    expect_shared_needs();
    Progress progress("sweep", static_cast<int64_t>(parsed_.size()) + 1);
    progress.step(0, "base");
    evaluate(model_path_, "base", /*save=*/true);
    progress.step(1);
    for (size_t i = 0; i < parsed_.size(); ++i) {
      progress.step(0, recipe_.chains[i].name);
      run_chain(i);
      progress.step(1);
    }
    finish();
  }

 private:
  // What chains that begin with the original activations will ask of them, so that one pass gathers it all.
  void expect_shared_needs() {
    for (const auto& steps : parsed_) {
      unsigned needs = chain::kNeedsNothing;
      bool sequential = false;
      for (const chain::ParsedStep& step : steps) {
        const chain::Step& function = step.row->function;
        if (function.scope == chain::StepScope::model) break;
        const unsigned own = function.needs ? function.needs(step.options) : chain::kNeedsNothing;
        needs |= own;
        sequential |= function.sequential && own != chain::kNeedsNothing;
      }
      if (!sequential) cache_->expect(needs);
    }
  }

  void evaluate(const std::string& path, const std::string& name, bool save) {
    std::vector<std::string> arguments = {"eval",
                                          path,
                                          "--ledger",
                                          ledger_,
                                          "--name",
                                          name,
                                          "--ctx",
                                          std::to_string(recipe_.ctx),
                                          "--chunks",
                                          std::to_string(recipe_.chunks),
                                          save ? "--save-logits" : "--base-logits",
                                          logits_};
    if (!recipe_.evaluation_file.empty()) arguments.insert(arguments.end(), {"--text", recipe_.evaluation_file});
    run_self(context_, std::move(arguments));
  }

  void run_chain(size_t index) {
    const RecipeChain& chain = recipe_.chains[index];
    nn::LoadedModel loaded = context_.loader.load(model_path_);
    CompressionJob job;
    job.steps = parsed_[index];
    job.output = (fs::path(values_.output) / "models" / file_name_of(chain.name)).string();
    job.overwrite = true;
    job.format = nn::SaveFormat::frugal;
    job.ledger = ledger_;
    job.name = chain.name;
    job.text = text_;
    job.calibration = recipe_.calibration;
    job.cache = cache_;
    const CompressionResult result = compress(context_, loaded, base_hash_, job);
    log_info("{}: {:.1f} MB in {:.1f} s", chain.name, static_cast<double>(result.bytes) / 1e6, result.seconds);
    evaluate(job.output, chain.name, /*save=*/false);
  }

  // The smallest point whose perplexity is within the tolerance of the base's.
  const chain::LedgerRow* choose(const std::vector<chain::LedgerRow>& rows) const {
    const chain::LedgerRow* best = nullptr;
    for (const chain::LedgerRow& row : rows) {
      if (row.base_hash != base_hash_ || !row.ln_ratio || !row.bytes || *row.ln_ratio > std::log1p(values_.tolerance)) continue;
      if (!best || *row.bytes < *best->bytes) best = &row;
    }
    return best;
  }

  void finish() {
    const std::vector<chain::LedgerRow> all = chain::read_ledger(ledger_).rows;
    // Earlier sweeps into this directory are drawn too, but none of their models is chosen.
    const std::vector<chain::LedgerRow> rows = chain::latest_evaluations({all.begin() + static_cast<int64_t>(earlier_rows_), all.end()});
    const fs::path out(values_.output);
    for (const auto& [name, text] : {std::pair{"report.html", eval::report_html(all)}, std::pair{"report.svg", eval::report_svg(all)}}) {
      write_text_file((out / name).string(), text);
    }
    const chain::LedgerRow* chosen = choose(rows);
    std::string chosen_path = model_path_;
    if (chosen && !chosen->chain.empty()) chosen_path = (out / "models" / file_name_of(chosen->name)).string();
    write_text_file((out / "chosen.txt").string(), chosen_path + "\n");
    if (!values_.keep_models) {
      for (const RecipeChain& chain : recipe_.chains) {
        const fs::path path = out / "models" / file_name_of(chain.name);
        if (path != chosen_path) fs::remove_all(path);
      }
    }
    if (context_.json) {
      print_json({{"ledger", ledger_},
                  {"report", (out / "report.html").string()},
                  {"svg", (out / "report.svg").string()},
                  {"chosen", chosen_path},
                  {"points", parsed_.size() + 1}});
      return;
    }
    print(eval::report_table(all));
    if (chosen) {
      print(fmt::format("\nChosen: {} ({:.1f} MB, perplexity {:+.1f} %), the smallest within {:.0f} % of the base: {}\n", chosen->name,
                        static_cast<double>(*chosen->bytes) / 1e6, 100 * (std::exp(*chosen->ln_ratio) - 1), 100 * values_.tolerance, chosen_path));
    }
  }

  const Context& context_;
  const SweepValues& values_;
  Recipe recipe_;
  std::string ledger_, logits_, model_path_, base_hash_;
  std::vector<std::vector<chain::ParsedStep>> parsed_;
  size_t earlier_rows_ = 0;
  chain::CalibrationText text_;
  std::shared_ptr<chain::CalibrationCache> cache_;
};

}  // namespace

void add_sweep(CLI::App& app, Context& context) {
  const auto values = std::make_shared<SweepValues>();
  new_verb(app, context, "sweep", "Run the chains of a recipe, evaluate each against the base, draw the trade-off",
           [&context, values] { Sweep(context, *values).run(); })
      .text("model,-m,--model,--hf-repo", values->model, "Path or hub name")
      .required()
      .text("--recipe", values->recipe, "YAML file with chains")
      .required()
      .text("-o,--output", values->output, "Directory for ledger.jsonl, report.html, report.svg and models/")
      .required()
      .number("--tolerance", values->tolerance, 0.0, 100.0, "Perplexity that the chosen model may lose, as a share")
      .flag("--keep-models", values->keep_models, "Keep every model, not only the chosen one");
}

}  // namespace frugal::cli
