#include "cli/served_ledger.h"

#include <algorithm>
#include <filesystem>
#include <optional>

#include "base/error.h"
#include "base/log.h"
#include "chain/manifest.h"
#include "cli/resources.h"
#include "eval/report_data.h"
#include "io/checkpoint.h"
#include "serve/service.h"

namespace frugal::cli {
namespace {
namespace fs = std::filesystem;

struct Candidate {
  std::string path;
  std::optional<std::string> served_as;
  std::shared_ptr<const io::Checkpoint> checkpoint;
  std::optional<chain::Manifest> manifest;
  std::string hash;  // of the weights, once it is asked for

  bool made(const chain::LedgerRow& row) {
    if (row.bytes && *row.bytes != static_cast<int64_t>(checkpoint->weight_bytes)) return false;
    if (manifest) return row.base_hash == manifest->base_hash && row.chain == manifest->chain && row.calibration == manifest->calibration;
    if (!row.chain.empty() || !row.bytes) return false;
    if (hash.empty()) hash = weights_hash(*checkpoint);
    return hash == row.model_hash;
  }
};

Candidate candidate(std::shared_ptr<const io::Checkpoint> checkpoint, std::optional<std::string> served_as) {
  nn::LoadedModel named;
  named.name = checkpoint->path;
  named.manifest = checkpoint->manifest;
  return {checkpoint->path, std::move(served_as), checkpoint, chain::read_manifest(named), {}};
}

std::vector<Candidate> candidates(const fs::path& ledger, const serve::Service& service) {
  std::vector<Candidate> found;
  for (const auto& model : service.models()) {
    found.push_back(candidate(std::static_pointer_cast<const io::Checkpoint>(model->loaded.source), model->name));
  }
  std::vector<std::string> paths;
  std::error_code code;
  for (fs::directory_iterator entry(ledger.parent_path() / "models", code), end; !code && entry != end; entry.increment(code)) {
    paths.push_back(entry->path().string());
  }
  std::ranges::sort(paths);
  for (const std::string& path : paths) {
    try {
      found.push_back(candidate(io::open_checkpoint(path), std::nullopt));
    } catch (const Error& error) {
      log_info("{} is not read: {}", path, error.what());
    }
  }
  return found;
}

}  // namespace

Json served_ledger(const std::string& ledger, const serve::Service& service) {
  const eval::Report report = eval::arrange(chain::read_ledger(ledger).rows);
  std::vector<Candidate> known = candidates(fs::path(ledger), service);
  Json json = eval::report_json(report);
  json["ledger"] = ledger;
  for (size_t i = 0; i < report.points.size(); ++i) {
    const auto it = std::ranges::find_if(known, [&](Candidate& one) { return one.made(report.points[i].row); });
    json["rows"][i]["path"] = it == known.end() ? Json(nullptr) : Json(it->path);
    json["rows"][i]["served_as"] = it == known.end() || !it->served_as ? Json(nullptr) : Json(*it->served_as);
  }
  return json;
}

}  // namespace frugal::cli
