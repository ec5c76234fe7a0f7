// What every verb gets: the options that all share, the joined tables, and the only code of the project that prints.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "chain/step.h"
#include "cli/verb.h"
#include "nn/loader.h"

namespace frugal::cli {

inline constexpr const char* kVersion = "0.1.0";

struct Context {
  Context(const chain::StepTable& step_table, const nn::ModelLoader& model_loader) : steps(step_table), loader(model_loader) {}
  const chain::StepTable& steps;
  const nn::ModelLoader& loader;
  // Options of every verb.
  bool json = false;
  std::string threads_text = "0";
  std::vector<int64_t> thread_counts;  // from threads_text; several for bench only
  int64_t threads = 0;                 // the one in use
  int64_t seed = -1;                   // -1: 0 for methods, random for sampling
  uint64_t method_seed() const { return seed < 0 ? 0 : static_cast<uint64_t>(seed); }
  std::string log_level = "warning";
  bool offline = false;
  std::string revision = "main", hub_file, hub_token;
  std::string log_file;
  std::string program;  // path of this executable
  // The chosen verb's work, run after parsing.
  std::function<void()> run;
};

// Adds a verb with the common options; `work` runs after parsing.
Verb new_verb(CLI::App& app, Context& context, const std::string& name, const std::string& summary, std::function<void()> work);

// A verb that only has verbs of its own.
CLI::App& verb_group(CLI::App& app, const std::string& name, const std::string& summary);

// One small file per verb.
void add_compress(CLI::App& app, Context& context);
void add_eval(CLI::App& app, Context& context);
void add_sweep(CLI::App& app, Context& context);
void add_generate(CLI::App& app, Context& context);
void add_chat(CLI::App& app, Context& context);
void add_serve(CLI::App& app, Context& context);
void add_report(CLI::App& app, Context& context);
void add_bench(CLI::App& app, Context& context);
void add_inspect(CLI::App& app, Context& context);
void add_tokenize(CLI::App& app, Context& context);
void add_tokenizer(CLI::App& app, Context& context);
void add_train(CLI::App& app, Context& context);
void add_grow(CLI::App& app, Context& context);
void add_tune(CLI::App& app, Context& context);
void add_distill(CLI::App& app, Context& context);
void add_plan(CLI::App& app, Context& context);
void add_runs(CLI::App& app, Context& context);
void add_merge(CLI::App& app, Context& context);
void add_convert(CLI::App& app, Context& context);
void add_methods(CLI::App& app, Context& context);
void add_claims(CLI::App& app, Context& context);

// stdout.
void print(const std::string& text);  // as it is, flushed
void print_json(const Json& value);   // with a newline

}  // namespace frugal::cli
