// BitNet's training against transformers' AutoBitLinear, and what is stored against what was trained.
#include "quantize/bitnet_b158.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "method_rows.h"
#include "train/test_tools.h"

namespace frugal::quantize {
namespace {

using at::Tensor;
using testing::relative_error;

const TrainedQuantization& bitnet() { return trained_quantization_table().at("bitnet-b158").function; }

TEST(BitnetB158, WeightsAreThoseOfThePaper) {
  Rng rng(testing::fresh_seed());
  for (int trial = 0; trial < 5; ++trial) {
    const int64_t rows = rng.between(1, 20), columns = rng.between(1, 70);
    const Tensor weight = (0.3 * at::randn({rows, columns})).requires_grad_(), slope = at::randn({rows, columns});
    const Tensor ternary = ternary_weight(weight);
    double sum = 0;
    const Tensor values = weight.detach();
    const auto numbers = values.accessor<float, 2>();
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < columns; ++c) sum += std::abs(static_cast<double>(numbers[r][c]));
    }
    const double scale = sum / static_cast<double>(rows * columns);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < columns; ++c) {
        const double position = static_cast<double>(numbers[r][c]) / scale;
        if (std::abs(std::abs(position) - 0.5) < 1e-5) continue;  // at the border either is nearest
        EXPECT_NEAR(ternary[r][c].item<double>(), scale * (position > 0.5 ? 1 : position < -0.5 ? -1 : 0), 1e-6);
      }
    }
    torch::autograd::backward({ternary}, {slope});
    EXPECT_TRUE(at::equal(weight.grad(), slope));
    const formats::GroupedWeight codes = ternary_codes(ternary.detach());
    Tensor decoded = at::empty({rows, columns});
    for (int64_t r = 0; r < rows; ++r) formats::decode_row(codes, r, decoded[r].mutable_data_ptr<float>());
    EXPECT_TRUE(at::equal(decoded, ternary.detach())) << "to the bit";
  }
  EXPECT_TRUE(at::equal(ternary_weight(at::zeros({2, 3})), at::zeros({2, 3})));
}

TEST(BitnetB158, LossesAndGradientsEqualTransformersAutoBitLinear) {
  Rng rng(testing::fresh_seed());
  const io::TemporaryFolder folder;
  const std::string path = models::TinyModels::get().path("bitnet");
  const nn::LoadedModel loaded = models::Loader().load(path);
  ASSERT_TRUE(loaded.model->spec.blocks[0].sub_norms);
  const data::Dataset dataset = train::random_dataset(rng, loaded.model->spec.vocab, 8, 24);
  const train::RunShape run{.steps = 3};  // a code that rounds the other way parts the runs, by less than it matters, but for ever
  train::write_data(folder / "data", dataset, run);
  io::run_oracle("run_training.py", fmt::format("ternary:{} {} {}", path, folder / "data", folder / "out"));
  const auto parameters = bitnet().begin(*loaded.model, {});
  train::expect_same_run(*loaded.model, parameters, dataset, models::read_tensors(folder / "out"), run, 2e-2);
}

TEST(BitnetB158, WhatIsStoredComputesWhatWasTrained) {
  const at::NoGradGuard no_grad;
  at::manual_seed(testing::fresh_seed());
  const nn::Model original = testing::tiny_model({.hidden = 64, .heads = 4, .kv_heads = 2, .head_dim = 16, .intermediate = 96, .sub_norms = true});
  nn::Model model = original;
  bitnet().begin(model, {});
  const std::vector<int32_t> tokens = testing::random_tokens(24, model.spec.vocab);
  const auto logits = [&] { return model.forward(nn::Batch::single(tokens, nullptr)).logits; };
  const Tensor trained = logits(), input = at::randn({8, 64});
  const Tensor product = model.blocks[0].up.forward(nn::Activation(input));
  bitnet().store(model, {});
  for (const nn::Execution execution : {nn::Execution::stored, nn::Execution::expanded, nn::Execution::packed}) {
    model.set_execution(execution);
    EXPECT_LT(relative_error(model.blocks[0].up.forward(nn::Activation(input)), product), 1e-5);
    EXPECT_LT(relative_error(logits(), trained), 3e-2);  // now and then an input lies between two codes, and rounding before it chooses
  }
  EXPECT_NE(model.blocks[0].up.kinds().front()->packed(), nullptr) << "no integer kernel runs it";
  nn::Linear& up = model.blocks[0].up;
  EXPECT_LT(static_cast<double>(up.storage_bytes()) * 8 / static_cast<double>(up.out_features() * up.in_features()), 2 + 32.0 / 64 + 1e-9);
}

}  // namespace
}  // namespace frugal::quantize
