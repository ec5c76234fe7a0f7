// The oracle is the package peft: it makes adapters on tiny random models (tests/oracle/make_peft_adapters.py), and reads ours.
#include "tune/adapter.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "models/test_tools.h"
#include "tiny_model.h"
#include "tune/target_modules.h"

namespace frugal::tune {
namespace {

using io::outcome_of;
using models::kRounding;
using models::read_tensors;
using models::relative_difference;
using nn::Execution;
using testing::TemporaryFolder;

class PeftAdapters {
 public:
  static const PeftAdapters& get() {
    static const PeftAdapters adapters;
    return adapters;
  }
  const std::vector<std::string>& names() const { return names_; }
  std::string path(const std::string& name) const { return folder_ / name; }
  std::string base(const std::string& name) const { return folder_ / name.substr(0, name.find('_')); }
  std::map<std::string, Tensor> expected(const std::string& name) const { return read_tensors(path(name) + ".expected.safetensors"); }

 private:
  PeftAdapters() {
    std::istringstream lines(io::run_oracle("make_peft_adapters.py", fmt::format("{} {}", folder_.path(), testing::test_seed())));
    for (std::string line; std::getline(lines, line);) names_.push_back(line);
  }
  TemporaryFolder folder_;
  std::vector<std::string> names_;
};

nn::LoadedModel load(const std::string& path, Execution execution = Execution::expanded) { return models::Loader().load(path, execution); }

Tensor logits(const nn::Model& model, const std::vector<int32_t>& tokens) {
  const at::NoGradGuard no_grad;
  return model.forward(nn::Batch::single(tokens, nullptr)).logits;
}

std::unique_ptr<Adapter> attach(nn::Model& model, const std::string& step, uint64_t seed = 1) {
  const StepText text = parse_step(step);
  const AdapterRow& row = adapter_table().at(text.id);
  return row.function(model, Options(row.id, row.options, text.options), seed);
}

// As training leaves them: none of the tensors at its first value.
void disturb(Adapter& adapter) {
  const at::NoGradGuard no_grad;
  for (train::Parameter& parameter : adapter.parameters()) parameter.tensor.add_(at::randn(parameter.tensor.sizes()), 0.1);
}

TEST(LoadAdapter, ComputesWhatPeftComputes) {
  for (const std::string& name : PeftAdapters::get().names()) {
    SCOPED_TRACE(name);
    const auto expected = PeftAdapters::get().expected(name);
    const nn::LoadedModel loaded = load(PeftAdapters::get().base(name));
    const std::vector<int32_t> tokens = models::ids_of(expected.at("tokens"));
    const Tensor before = logits(*loaded.model, tokens);
    const auto adapter = load_adapter(*loaded.model, PeftAdapters::get().path(name));
    EXPECT_LT(relative_difference(logits(*loaded.model, tokens), expected.at("logits")), kRounding);
    EXPECT_GT(relative_difference(before, expected.at("logits")), 100 * kRounding) << "the adapter must make a difference";
    adapter->detach();
    EXPECT_TRUE(at::equal(logits(*loaded.model, tokens), before));
  }
}

TEST(LoadAdapter, GradientsAreThoseOfPeftByName) {
  for (const std::string& name : PeftAdapters::get().names()) {
    SCOPED_TRACE(name);
    const auto expected = PeftAdapters::get().expected(name);
    const nn::LoadedModel loaded = load(PeftAdapters::get().base(name));
    const auto adapter = load_adapter(*loaded.model, PeftAdapters::get().path(name));
    const Tensor ids = expected.at("tokens");
    const Tensor out = loaded.model->forward(nn::Batch::single(models::ids_of(ids), nullptr)).logits;
    at::cross_entropy_loss(out.slice(0, 0, -1), ids.slice(0, 1)).backward();
    size_t compared = 0;
    for (const train::Parameter& parameter : adapter->parameters()) {
      const std::string key = "grad.base_model.model." + parameter.name;
      ASSERT_TRUE(expected.contains(key)) << key;
      EXPECT_LT(relative_difference(parameter.tensor.grad(), expected.at(key)), 1e-4) << key;
      ++compared;
    }
    EXPECT_EQ(compared + 2, expected.size());
    loaded.model->for_each_tensor([&](const std::string& tensor, Tensor& value) {
      if (tensor.find("lora_") == tensor.npos && tensor.find("ia3_") == tensor.npos && tensor.find("vera_") == tensor.npos) {
        EXPECT_FALSE(value.grad().defined()) << tensor;
      }
    });
  }
}

TEST(Adapter, PeftReadsWhatIsSaved) {
  const TemporaryFolder folder;
  std::vector<std::string> names;
  std::vector<Tensor> ours;
  std::string arguments;
  const auto save = [&](const std::string& name, const std::string& base, Adapter& adapter, const nn::Model& model) {
    const std::vector<int32_t> tokens = testing::random_tokens(20, model.spec.vocab);
    adapter.save(folder / name, base);
    models::write_tokens(folder / (name + ".tokens"), tokens);
    ours.push_back(logits(model, tokens));
    names.push_back(name);
    arguments += fmt::format("{} {} {} {} ", base, folder / name, folder / (name + ".tokens"), folder / (name + ".logits"));
  };
  at::manual_seed(testing::test_seed());
  for (const std::string& name : PeftAdapters::get().names()) {
    const nn::LoadedModel loaded = load(PeftAdapters::get().base(name));
    const auto adapter = load_adapter(*loaded.model, PeftAdapters::get().path(name));
    disturb(*adapter);
    save(name, PeftAdapters::get().base(name), *adapter, *loaded.model);
  }
  for (const AdapterRow& row : adapter_table().rows()) {
    const std::string base = PeftAdapters::get().base("base");
    const nn::LoadedModel loaded = load(base);
    const auto adapter = attach(*loaded.model, row.id);
    disturb(*adapter);
    save("new-" + row.id, base, *adapter, *loaded.model);
  }
  io::run_oracle("check_peft.py", arguments);
  for (size_t i = 0; i < names.size(); ++i) {
    EXPECT_LT(relative_difference(ours[i], read_tensors(folder / (names[i] + ".logits")).at("logits")), kRounding) << names[i];
  }
}

TEST(Adapter, MergedComputesAsUnmerged) {
  for (const std::string& name : PeftAdapters::get().names()) {
    SCOPED_TRACE(name);
    const nn::LoadedModel loaded = load(PeftAdapters::get().base(name));
    const std::vector<int32_t> tokens = models::ids_of(PeftAdapters::get().expected(name).at("tokens"));
    const auto adapter = load_adapter(*loaded.model, PeftAdapters::get().path(name));
    const Tensor unmerged = logits(*loaded.model, tokens);
    adapter->merge(std::nullopt);
    loaded.model->set_execution(Execution::expanded);
    EXPECT_LT(relative_difference(logits(*loaded.model, tokens), unmerged), kRounding);
    for (nn::Linear* linear : all_linears(*loaded.model)) EXPECT_EQ(linear->describe(), "F32");
    EXPECT_TRUE(adapter->parameters().empty());
  }
}

}  // namespace
}  // namespace frugal::tune
