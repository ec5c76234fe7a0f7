// frugal claims: the experiments behind the methods' claims.
#include "claims/runner.h"

#include "base/error.h"
#include "cli/context.h"
#include "cli/resources.h"

namespace frugal::cli {
namespace {

struct ClaimsValues {
  std::vector<std::string> ids;
  std::string model, calib, text;
};

std::string default_model() {
  const std::string path = cache_directory() + "/models/SmolLM2-135M-Instruct.Q4_1.gguf";
  return path;
}

void run(const Context& context, const ClaimsValues& values) {
  std::vector<const chain::StepRow*> rows;
  for (const std::string& id : values.ids) rows.push_back(&context.steps.at(id));
  if (rows.empty()) {
    for (const chain::StepRow& row : context.steps.rows()) rows.push_back(&row);
  }
  claims::Setting setting;
  setting.load = [&context, path = values.model.empty() ? default_model() : values.model] { return load_model(context, path); };
  const nn::LoadedModel model = setting.load();
  setting.evaluation = load_eval_text(model, values.text);
  setting.calibration = load_calibration_text(model, values.calib);
  setting.seed = context.method_seed();
  claims::Runner runner(context.steps, setting);
  Json results = Json::array();
  for (const chain::StepRow* row : rows) {
    for (const Claim& claim : row->claims) {
      const claims::Result r = runner.run(claim);
      if (context.json) {
        results.push_back({{"id", row->id},
                           {"claim", claim.statement},
                           {"metric", claim.metric},
                           {"baseline", r.baseline},
                           {"method", r.method},
                           {"difference", r.difference},
                           {"stderr", r.standard_error},
                           {"verdict", claims::to_string(r.verdict)},
                           {"seconds", r.seconds}});
        continue;
      }
      print(fmt::format("{}: {}\n  {}: {:.4f}\n  {}: {:.4f}\n  {} difference {:+.4f} +- {:.4f}: {} ({:.0f} s)\n", row->id, claim.statement,
                        claim.baseline.empty() ? "the model as it is" : fmt::format("{}", fmt::join(claim.baseline, " ")), r.baseline,
                        fmt::join(claim.method, " "), r.method, claim.metric, r.difference, r.standard_error, claims::describe(r.verdict), r.seconds));
    }
    if (row->claims.empty() && !context.json && !values.ids.empty()) print(fmt::format("{}: no claim ({})\n", row->id, row->reference));
  }
  if (context.json) print_json(results);
}

}  // namespace

void add_claims(CLI::App& app, Context& context) {
  const auto values = std::make_shared<ClaimsValues>();
  new_verb(app, context, "claims", "Run the experiment behind a method's claim, with its baseline, in one run", [&context, values] { run(context, *values); })
      .texts("ids", values->ids, "Methods (default: all)")
      .text("-m,--model,--hf-repo", values->model, "Model (default: SmolLM2-135M-Instruct as scripts/quickstart fetches it)")
      .text("--calib", values->calib, "Calibration text")
      .text("--text", values->text, "Evaluation text");
}

}  // namespace frugal::cli
