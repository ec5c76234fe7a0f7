#include "chain/manifest.h"

#include "base/error.h"
#include "base/log.h"

namespace frugal::chain {

std::optional<Manifest> read_manifest(const nn::LoadedModel& loaded) {
  if (!loaded.manifest.is_object() || !loaded.manifest.contains("chain")) return std::nullopt;
  const JsonObject object(loaded.manifest, loaded.name + ": manifest");
  Manifest manifest;
  manifest.base = object.text("base");
  manifest.base_hash = object.text("base_hash");
  if (object.has("calibration")) manifest.calibration = object.text("calibration");
  if (!object.json()["chain"].is_array()) object.fail_at("chain", "must be an array");
  for (const Json& step : object.json()["chain"]) {
    const JsonObject item(step, loaded.name + ": manifest.chain");
    manifest.chain.push_back(item.text("step"));
    manifest.leaves.push_back(item.text("leaf"));
  }
  return manifest;
}

Json to_json(const Manifest& manifest) {
  Json chain = Json::array();
  for (size_t i = 0; i < manifest.chain.size(); ++i) chain.push_back({{"step", manifest.chain[i]}, {"leaf", manifest.leaves[i]}});
  Json json = {{"base", manifest.base}, {"base_hash", manifest.base_hash}, {"chain", chain}};
  if (!manifest.calibration.empty()) json["calibration"] = manifest.calibration;
  return json;
}

void extend(Manifest& manifest, const std::vector<ParsedStep>& steps, const std::string& calibration) {
  for (const ParsedStep& step : steps) {
    manifest.chain.push_back(step.text());
    manifest.leaves.push_back(step.row->leaf);
  }
  if (manifest.calibration != calibration) manifest.calibration += (manifest.calibration.empty() || calibration.empty() ? "" : "; ") + calibration;
}

std::vector<ParsedStep> steps_of(const Manifest& manifest, const StepTable& table) {
  std::vector<ParsedStep> steps;
  for (const std::string& text : manifest.chain) {
    try {
      steps.push_back(parse_chain_step(table, text));
    } catch (const Error& error) {
      log_warning("the model was made by a step that this version does not know, and no order is checked against it: {}", error.what());
    }
  }
  return steps;
}

void describe_origin(const Manifest& manifest, LedgerRow& row) {
  row.model = manifest.base;
  row.base_hash = manifest.base_hash;
  row.chain = manifest.chain;
  row.leaves = manifest.leaves;
  row.calibration = manifest.calibration;
}

}  // namespace frugal::chain
