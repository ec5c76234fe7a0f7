// What a checkpoint says of the chain that made it: frugal.json of a directory, the key frugal.chain of a GGUF file.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "chain/chain.h"
#include "chain/ledger.h"

namespace frugal::chain {

struct Manifest {
  std::string base, base_hash;             // name and weights_hash of the model that the chain began with
  std::vector<std::string> chain, leaves;  // canonical steps, and the survey leaf of each
  std::string calibration;                 // what the steps read: "calibration.txt:1f3a... 16x512 seed 0"; empty: nothing
};

// nullopt for an original. Throws Error{corrupt_file}.
std::optional<Manifest> read_manifest(const nn::LoadedModel& loaded);
Json to_json(const Manifest& manifest);

// Adds steps, and what they were calibrated on unless that is there already.
void extend(Manifest& manifest, const std::vector<ParsedStep>& steps, const std::string& calibration);

// The steps of the manifest that the table knows: what Workbench::done begins with. Others are warned about.
std::vector<ParsedStep> steps_of(const Manifest& manifest, const StepTable& table);

// Copies the manifest's fields into a row.
void describe_origin(const Manifest& manifest, LedgerRow& row);

}  // namespace frugal::chain
