// nn::ModelLoader for every family of model_table and every container of io/.
#pragma once

#include "nn/loader.h"

namespace frugal::models {

class Loader final : public nn::ModelLoader {
 public:
  // Weights stay as the file has them and are views of its mapping. Checks that every tensor of the specification is there
  // with its shape: Error{corrupt_file} names the first that is not. Another execution than `stored` is set matrix by matrix as
  // they are read, so that the file's form and the other are never both in memory.
  nn::LoadedModel load(const std::string& path, nn::Execution execution = nn::Execution::stored) const override;
  nn::LoadedModel load_any(const std::string& path, nn::Execution execution = nn::Execution::stored) const override;
  void save(const nn::LoadedModel& model, const std::string& path, const nn::SaveOptions& options) const override;
  std::string cannot_express(const nn::Model& model, nn::SaveFormat format) const override;
};

}  // namespace frugal::models
