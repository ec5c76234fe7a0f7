#include "train/grad_scaler.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <limits>

#include "base/rng.h"
#include "models/test_tools.h"
#include "oracle.h"

namespace frugal::train {
namespace {

TEST(GradScaler, ScalesAsTorchsDoesThroughGrowthAndOverflows) {
  Rng rng(testing::test_seed());
  std::vector<int32_t> finite;
  for (const int64_t run : {int64_t{3}, int64_t{2003}, int64_t{1999}, rng.between(1, 300)}) {
    finite.insert(finite.end(), static_cast<size_t>(run), 1);
    finite.insert(finite.end(), static_cast<size_t>(rng.between(1, 4)), 0);
  }
  const io::TemporaryFolder folder;
  io::write_safetensors(folder / "steps", {io::owned_tensor<int32_t>("finite", "I32", {std::ssize(finite)}, finite)});
  io::run_oracle("run_grad_scaler.py", fmt::format("{} {}", folder / "steps", folder / "out"));
  const auto want = models::read_tensors(folder / "out");
  const std::vector<Parameter> parameters = {{"w", at::zeros({2}).requires_grad_()}, {"without gradient", at::zeros({1}).requires_grad_()}};
  GradScaler scaler;
  for (size_t i = 0; i < finite.size(); ++i) {
    const float bad = finite[i] ? 0.0f : i % 2 == 0 ? std::numeric_limits<float>::infinity() : std::numeric_limits<float>::quiet_NaN();
    parameters[0].tensor.mutable_grad() = at::tensor({3 * static_cast<float>(scaler.scale()), bad});
    const bool all_finite = scaler.unscale(parameters);
    ASSERT_EQ(all_finite, finite[i] == 1) << i;
    if (all_finite) ASSERT_EQ(parameters[0].tensor.grad()[0].item<float>(), want.at("gradient")[static_cast<int64_t>(i)].item<float>()) << i;
    scaler.update(all_finite);
    if (i % 1000 == 7) {  // through a checkpoint
      const Json state = scaler.state();
      scaler = GradScaler();
      scaler.load(JsonObject(state, "checkpoint"));
    }
    ASSERT_EQ(scaler.scale(), want.at("scale")[static_cast<int64_t>(i)].item<double>()) << i;
    ASSERT_EQ(scaler.state()["_growth_tracker"].get<int64_t>(), want.at("tracker")[static_cast<int64_t>(i)].item<int64_t>()) << i;
  }
  EXPECT_THROW(scaler.load(JsonObject(Json{{"scale", 0}, {"_growth_tracker", 0}}, "checkpoint")), Error);
  EXPECT_THROW(scaler.load(JsonObject(Json{{"scale", 1}, {"_growth_tracker", 2000}}, "checkpoint")), Error);
}

}  // namespace
}  // namespace frugal::train
