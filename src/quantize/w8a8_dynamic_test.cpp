#include "quantize/w8a8_dynamic.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "method_rows.h"

namespace frugal::quantize {
namespace {

// The definition, written out: symmetric int8 per token.
at::Tensor rounded(const at::Tensor& x) {
  const at::Tensor scale = (x.abs().amax(1, /*keepdim=*/true) / 127).clamp_min(1e-30);
  return at::round(x / scale).clamp(-127, 127) * scale;
}

TEST(W8a8Dynamic, ALayerIsTheProductOfRoundedWeightsAndRoundedTokens) {
  testing::fresh_seed();
  nn::LoadedModel loaded;
  loaded.model = std::make_shared<nn::Model>(testing::tiny_model());
  const nn::Linear original = loaded.model->blocks[0].gate;
  const at::Tensor weight = original.dense().clone();
  const chain::StepTable table({w8a8_dynamic_row()});
  chain::Workbench bench(loaded, {}, {}, 1);
  chain::run_chain(bench, chain::parse_chain(table, {"w8a8-dynamic"}));
  nn::Linear& gate = loaded.model->blocks[0].gate;
  // To the nearest of 255 levels of its row: half a step, and the rounding of the float16 scale over 127 steps.
  const at::Tensor steps = (gate.dense() - weight).abs() / (weight.abs().amax(1, /*keepdim=*/true) / 127);
  EXPECT_LT(steps.max().item<double>(), 0.57);
  const at::Tensor x = at::randn({9, weight.size(1)}) * at::randn({9, 1}).exp();
  const at::Tensor want = at::matmul(rounded(x), gate.dense().t());
  for (const nn::Execution execution : {nn::Execution::expanded, nn::Execution::packed}) {
    gate.set_execution(execution);
    EXPECT_LT(testing::relative_error(gate.forward(nn::Activation(x)), want), 1e-5);
  }
}

}  // namespace
}  // namespace frugal::quantize
