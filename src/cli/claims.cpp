// frugal claims: the experiments behind the methods' claims.
#include <cstdlib>
#include <filesystem>
#include <map>

#include "base/error.h"
#include "claims/runner.h"
#include "cli/context.h"
#include "cli/methods.h"
#include "cli/resources.h"
#include "cli/terminal.h"

namespace frugal::cli {
namespace fs = std::filesystem;
namespace {

struct ClaimsValues {
  std::vector<std::string> ids;
  std::string model, calib, text;
};

// Where the model that a claim names is, unless the user names another one.
std::string model_path(const ClaimsValues& values, const std::string& name) {
  if (!values.model.empty()) return values.model;
  const bool trained_here = name == "T";
  const std::string path = cache_directory() + (trained_here ? "/models/T" : "/models/SmolLM2-135M-Instruct.Q4_1.gguf");
  if (!fs::exists(path)) fail(ErrorKind::io, "{}: no model {}; scripts/{} makes it, or name one", path, name, trained_here ? "train-model-t" : "quickstart");
  return path;
}

claims::Texts texts_of(const ClaimsValues& values, const std::string& name) {
  const std::string held_out = name == "reference" ? "evaluation" : name + "-evaluation";
  return {text_path(values.calib, name), text_path(values.text, held_out)};
}

// A folder of this process that goes with it.
class WorkFolder {
 public:
  WorkFolder() : path_((fs::temp_directory_path() / "frugal-claims-XXXXXX").string()) {
    if (!::mkdtemp(path_.data())) fail_errno("cannot make", path_);
  }
  ~WorkFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  WorkFolder(const WorkFolder&) = delete;
  WorkFolder& operator=(const WorkFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

claims::Setting setting_of(const Context& context, const ClaimsValues& values, const WorkFolder& work) {
  claims::Setting setting;
  const auto load = [&context](const std::string& path) { return load_model(context, path); };
  setting.load = [load, &values](const std::string& model) { return load(model_path(values, model)); };
  const auto words = [load = setting.load,
                      models = std::make_shared<std::map<std::string, nn::LoadedModel>>()](const std::string& name) -> const nn::LoadedModel& {
    if (const auto found = models->find(name); found != models->end()) return found->second;
    return models->emplace(name, load(name)).first->second;
  };
  setting.evaluation = [words, &values](const std::string& model) { return load_eval_text(words(model), values.text); };
  setting.calibration = [words, &values](const std::string& model) { return load_calibration_text(words(model), values.calib); };
  setting.seed = setting.training.seed = context.method_seed();
  setting.training.path = [&](const std::string& name) { return resolve_model_path(context, model_path(values, name)); };
  setting.training.load = load;
  setting.training.texts = [&](const std::string& name) { return texts_of(values, name); };
  setting.training.note = [](const std::string& line) { print_note(line); };
  setting.training.work = work.path();
  return setting;
}

Json to_json(const std::string& id, const Claim& claim, const claims::Result& r) {
  const auto rate = [](double value) { return value > 0 ? Json(value) : Json(); };
  return {{"id", id},
          {"claim", claim.statement},
          {"model", claim.model},
          {"metric", claim.metric},
          {"baseline_chain", claim.baseline},
          {"method_chain", claim.method},
          {"baseline", r.baseline},
          {"baseline_stderr", r.baseline_error},
          {"method", r.method},
          {"method_stderr", r.method_error},
          {"factor", claim.factor},
          {"bound", claim.bound},
          {"difference", r.difference},
          {"stderr", r.standard_error},
          {"observations", r.observations},
          {"baseline_learning_rate", rate(r.baseline_rate)},
          {"method_learning_rate", rate(r.method_rate)},
          {"verdict", claims::to_string(r.verdict)},
          {"seconds", r.seconds}};
}

std::string side_text(const std::vector<std::string>& words, double value, double error, double rate, int64_t observations) {
  std::string text = words.empty() ? "the model as it is" : fmt::format("{}", fmt::join(words, " "));
  if (rate > 0) text += fmt::format(" at rate {:g}", rate);
  text += fmt::format(": {:.5g}", value);
  if (observations > 1) text += fmt::format(" +- {:.2g}", error);
  return text;
}

std::string to_text(const std::string& id, const Claim& claim, const claims::Result& r) {
  std::string text =
      fmt::format("{}: {}\n  {}\n  {}\n", id, claim.statement, side_text(claim.baseline, r.baseline, r.baseline_error, r.baseline_rate, r.observations),
                  side_text(claim.method, r.method, r.method_error, r.method_rate, r.observations));
  const std::string subtracted = claim.factor == 1 ? "" : fmt::format(" to {:g} times the baseline", claim.factor);
  text += fmt::format("  {} of {}, difference{} {:+.4g}", claim.metric, claim.model, subtracted, r.difference);
  if (r.observations > 1) text += fmt::format(" +- {:.2g} ({} pairs)", r.standard_error, r.observations);
  if (claim.bound != 0) text += fmt::format(", bound {:g}", claim.bound);
  return text + fmt::format(": {} ({:.0f} s)\n", claims::describe(r.verdict), r.seconds);
}

void run(const Context& context, const ClaimsValues& values) {
  const Methods methods = all_methods(context);
  std::vector<const Method*> rows;
  for (const std::string& id : values.ids) rows.push_back(&methods.at(id));
  if (rows.empty()) {
    for (const Method& row : methods.rows()) rows.push_back(&row);
  }
  const WorkFolder work;
  claims::Runner runner(context.steps, setting_of(context, values, work));
  Json results = Json::array();
  for (const Method* row : rows) {
    for (const Claim& claim : row->claims) {
      const claims::Result result = runner.run(claim);
      if (context.json)
        results.push_back(to_json(row->id, claim, result));
      else
        print(to_text(row->id, claim, result));
    }
    if (row->claims.empty() && !context.json && !values.ids.empty()) print(fmt::format("{}: no claim ({})\n", row->id, row->reference));
  }
  if (context.json) print_json(results);
}

}  // namespace

void add_claims(CLI::App& app, Context& context) {
  const auto values = std::make_shared<ClaimsValues>();
  new_verb(app, context, "claims", "Run the experiment behind a method's claim, with its baseline, in one run", [&context, values] { run(context, *values); })
      .texts("ids", values->ids, "Methods (default: all, which takes most of an hour)")
      .text("-m,--model,--hf-repo", values->model,
            "Model, in place of those that claims name: S (SmolLM2-135M-Instruct, from scripts/quickstart), T (a small one, from scripts/train-model-t)")
      .text("--calib", values->calib, "Text to calibrate and to train on")
      .text("--text", values->text, "Text to evaluate on");
}

}  // namespace frugal::cli
