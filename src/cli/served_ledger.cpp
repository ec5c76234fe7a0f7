#include "cli/served_ledger.h"

#include <algorithm>
#include <filesystem>
#include <optional>

#include "chain/manifest.h"
#include "cli/resources.h"
#include "eval/report_data.h"
#include "io/checkpoint.h"
#include "serve/service.h"

namespace frugal::cli {
namespace {
namespace fs = std::filesystem;

struct Candidate {
  std::string name;
  std::shared_ptr<const io::Checkpoint> checkpoint;
  std::optional<chain::Manifest> manifest;
  std::string hash;  // of the weights, once it is asked for

  explicit Candidate(const serve::ModelCatalog::Listing& listing) : name(listing.name), checkpoint(io::open_checkpoint(listing.path)) {
    nn::LoadedModel named;
    named.name = checkpoint->path;
    named.manifest = checkpoint->manifest;
    manifest = chain::read_manifest(named);
  }
  bool made(const chain::LedgerRow& row) {
    if (row.bytes && *row.bytes != static_cast<int64_t>(checkpoint->weight_bytes)) return false;
    if (manifest) return row.base_hash == manifest->base_hash && row.chain == manifest->chain && row.calibration == manifest->calibration;
    if (!row.chain.empty() || !row.bytes) return false;
    if (hash.empty()) hash = weights_hash(*checkpoint);
    return hash == row.model_hash;
  }
};

}  // namespace

std::vector<std::string> paths_beside(const std::string& ledger) {
  std::vector<std::string> paths;
  std::error_code code;
  for (fs::directory_iterator entry(fs::path(ledger).parent_path() / "models", code), end; !code && entry != end; entry.increment(code))
    paths.push_back(entry->path().string());
  std::ranges::sort(paths);
  return paths;
}

Json served_ledger(const std::string& ledger, serve::Service& service) {
  const eval::Report report = eval::arrange(chain::read_ledger(ledger).rows);
  std::vector<Candidate> known;
  for (const auto& listing : service.catalog().list()) known.emplace_back(listing);
  Json json = eval::report_json(report);
  json["ledger"] = ledger;
  for (size_t i = 0; i < report.points.size(); ++i) {
    const auto it = std::ranges::find_if(known, [&](Candidate& one) { return one.made(report.points[i].row); });
    json["rows"][i]["path"] = it == known.end() ? Json(nullptr) : Json(it->checkpoint->path);
    json["rows"][i]["served_as"] = it == known.end() ? Json(nullptr) : Json(it->name);
  }
  return json;
}

}  // namespace frugal::cli
