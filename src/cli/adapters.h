// --lora and --lora-scaled: adapters of peft on a model that is used as it is.
#pragma once

#include <string>
#include <vector>

#include "cli/context.h"

namespace frugal::cli {

struct AdapterValues {
  std::vector<std::string> paths, scaled;  // "PATH,PATH"; "PATH:SCALE,PATH:SCALE"
  bool empty() const { return paths.empty() && scaled.empty(); }
};

void add_adapter_options(Verb& verb, AdapterValues& values);

// Puts them on a model that was loaded in this form; their bytes count as the model's. Throws Error, e.g. for an encoder.
void attach_adapters(const AdapterValues& values, nn::LoadedModel& model, nn::Execution execution);

// What a ledger says of them: "lora:NAME", "lora:NAME,scale=0.5".
std::vector<std::string> runtime_settings(const AdapterValues& values);

}  // namespace frugal::cli
