// What the tests of this folder share: tiny checkpoints from transformers, expected values, comparisons.
#pragma once

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <sstream>

#include "formats/format.h"
#include "io/safetensors.h"
#include "io/test_tools.h"
#include "models/loader.h"

namespace frugal::models {

using at::Tensor;

// Tensors of a safetensors file as copies in float32 (numbers) or int64 (integers).
inline std::map<std::string, Tensor> read_tensors(const std::string& path) {
  const auto file = MappedFile::open(path);
  std::map<std::string, Tensor> tensors;
  for (const TensorView& view : io::read_safetensors(file->bytes(), path).tensors) {
    const at::ScalarType type = view.format == "I32" ? at::kInt : at::kFloat;
    const Tensor values = at::from_blob(const_cast<std::byte*>(view.bytes.data()), view.shape, at::TensorOptions(type));
    tensors[view.name] = type == at::kInt ? values.to(at::kLong) : values.clone();
  }
  return tensors;
}

inline void write_tokens(const std::string& path, const std::vector<int32_t>& tokens) {
  io::write_safetensors(path, {io::owned_tensor<int32_t>("tokens", "I32", {static_cast<int64_t>(tokens.size())}, tokens)});
}

inline std::vector<int32_t> ids_of(const Tensor& ids) {
  std::vector<int32_t> result;
  for (int64_t i = 0; i < ids.numel(); ++i) result.push_back(static_cast<int32_t>(ids[i].item<int64_t>()));
  return result;
}

inline Tensor logits_of(const nn::LoadedModel& loaded, const std::vector<int32_t>& tokens) {
  const at::NoGradGuard no_grad;
  loaded.model->set_execution(nn::Execution::expanded);
  return loaded.model->forward(nn::Batch::single(tokens, nullptr)).logits;
}

inline double largest_difference(const Tensor& a, const Tensor& b) { return (a - b).abs().max().item<double>(); }
// In units of the largest number of `b`.
inline double relative_difference(const Tensor& a, const Tensor& b) { return largest_difference(a, b) / std::max(1e-30, b.abs().max().item<double>()); }

// Bar for two float32 evaluations of one tiny model, in units of the largest logit. Typically they agree to 1e-6; sharp attention,
// which random weights draw now and then, amplifies rounding: 1e-5 to 2e-5 was seen twice.
inline constexpr double kRounding = 1e-4;

// Checkpoints of transformers with random shapes, made once for the process.
class TinyModels {
 public:
  static const TinyModels& get() {
    static const TinyModels models;
    return models;
  }
  const std::vector<std::string>& names() const { return names_; }
  std::string path(const std::string& name) const { return folder_ / name; }
  std::map<std::string, Tensor> expected(const std::string& name) const { return read_tensors(path(name) + ".expected.safetensors"); }

 private:
  TinyModels() {
    std::istringstream lines(io::run_oracle("make_tiny_models.py", fmt::format("{} {}", folder_.path(), testing::test_seed())));
    for (std::string line; std::getline(lines, line);) {
      if (!line.empty()) names_.push_back(line);
    }
  }
  io::TemporaryFolder folder_;
  std::vector<std::string> names_;
};

// Logits of transformers for files that we wrote, one for each of `paths`.
inline std::vector<Tensor> transformers_logits(const std::vector<std::string>& paths, const std::vector<std::vector<int32_t>>& tokens) {
  const io::TemporaryFolder folder;
  std::string arguments;
  for (size_t i = 0; i < paths.size(); ++i) {
    write_tokens(folder / fmt::format("{}.tokens", i), tokens[i]);
    arguments += fmt::format("{} {} {} ", paths[i], folder / fmt::format("{}.tokens", i), folder / fmt::format("{}.logits", i));
  }
  io::run_oracle("check_models.py", arguments);
  std::vector<Tensor> logits;
  for (size_t i = 0; i < paths.size(); ++i) logits.push_back(read_tensors(folder / fmt::format("{}.logits", i)).at("logits"));
  return logits;
}

}  // namespace frugal::models
