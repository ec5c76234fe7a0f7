// Checkpoints of transformers computed by our modules, against transformers.
#include <ATen/core/grad_mode.h>

#include "models/test_tools.h"
#include "text/tokenizer.h"

namespace frugal::models {
namespace {

const char* kStories = FRUGAL_SOURCE_DIR "/../shared/data/models/stories260K/stories260K.gguf";

TEST(Models, LogitsAndGreedyTextOfEveryFamilyAreThoseOfTransformers) {
  for (const std::string& name : TinyModels::get().names()) {
    SCOPED_TRACE(name);
    const auto expected = TinyModels::get().expected(name);
    const std::vector<int32_t> tokens = ids_of(expected.at("tokens"));
    const nn::LoadedModel loaded = Loader().load(TinyModels::get().path(name));
    const double difference = relative_difference(logits_of(loaded, tokens), expected.at("logits"));
    std::printf("%-16s largest relative logit difference %.2e\n", name.c_str(), difference);
    EXPECT_LE(difference, kRounding);
    std::vector<int32_t> ids(tokens.begin(), tokens.begin() + 24);
    for (const int32_t wanted : ids_of(expected.at("greedy"))) {
      const Tensor last = logits_of(loaded, ids)[-1];
      EXPECT_GE(last[wanted].item<double>(), last.max().item<double>() - kRounding * last.abs().max().item<double>()) << ids.size() << " ids";
      ids.push_back(wanted);
    }
    ASSERT_TRUE(loaded.tokenizer);
    EXPECT_LE(loaded.tokenizer->vocab_size(), loaded.model->spec.vocab);  // rows beyond the tokens pad the embedding
    EXPECT_EQ(loaded.end_ids, (std::vector<int32_t>{0, 1}));
    EXPECT_EQ(loaded.bos_text, "<|endoftext|>");
    EXPECT_EQ(loaded.eos_text, "<|end|>");
    EXPECT_TRUE(loaded.chat_template);
  }
}

TEST(Models, GradientsOfEveryParameterAreThoseOfTransformers) {
  for (const std::string& name : TinyModels::get().names()) {
    SCOPED_TRACE(name);
    const auto expected = TinyModels::get().expected(name);
    const nn::LoadedModel loaded = Loader().load(TinyModels::get().path(name));
    std::map<std::string, Tensor> parameters;
    loaded.model->for_each_tensor([&](const std::string& parameter, Tensor& tensor) {
      if (tensor.scalar_type() != at::kFloat) return;
      tensor = tensor.detach().clone().requires_grad_();
      parameters[parameter] = tensor;
    });
    const size_t gradients =
        static_cast<size_t>(std::count_if(expected.begin(), expected.end(), [](const auto& item) { return item.first.starts_with("grad."); }));
    if (gradients == 0) continue;  // bfloat16
    loaded.model->set_execution(nn::Execution::expanded);
    const Tensor tokens = expected.at("tokens");
    const Tensor logits = loaded.model->forward(nn::Batch::single(ids_of(tokens), nullptr)).logits;
    at::cross_entropy_loss(logits.narrow(0, 0, logits.size(0) - 1), tokens.narrow(0, 1, tokens.size(0) - 1)).backward();
    EXPECT_EQ(parameters.size(), gradients);
    double worst = 0;
    for (const auto& [parameter, tensor] : parameters) {
      ASSERT_TRUE(expected.contains("grad." + parameter)) << parameter;
      ASSERT_TRUE(tensor.grad().defined()) << parameter;
      const double difference = relative_difference(tensor.grad(), expected.at("grad." + parameter));
      EXPECT_LE(difference, 1e-4) << parameter;
      worst = std::max(worst, difference);
    }
    std::printf("%-16s %zu gradients, largest relative difference %.2e\n", name.c_str(), parameters.size(), worst);
  }
}

std::string error_of_load(const std::string& path) {
  return io::outcome_of([&] { Loader().load(path); });
}

TEST(Models, MissingAndMisshapenTensorsAreNamed) {
  const io::TemporaryFolder folder;
  const nn::LoadedModel loaded = Loader().load(TinyModels::get().path("qwen3"));
  Loader().save(loaded, folder / "m", {});
  const Json config = parse_json(read_text_file(folder / "m/config.json", 1 << 20), "config.json");
  const auto with = [&](const char* key, const Json& value) {
    Json changed = config;
    changed[key] = value;
    folder.write("m/config.json", changed.dump());
    return error_of_load(folder / "m");
  };
  const int64_t layers = config["num_hidden_layers"].get<int64_t>();
  EXPECT_THAT(with("intermediate_size", config["intermediate_size"].get<int64_t>() + 4), ::testing::HasSubstr("model.layers.0.mlp.gate_proj.weight is ["));
  EXPECT_THAT(with("num_hidden_layers", layers + 1), ::testing::HasSubstr(fmt::format("model.layers.{}.", layers)));
  EXPECT_THAT(with("num_hidden_layers", 1000000000), ::testing::StartsWith("corrupt"));
  EXPECT_THAT(with("head_dim", config["head_dim"].get<int64_t>() + 2), ::testing::HasSubstr("self_attn.q_norm.weight is ["));
  EXPECT_THAT(with("vocab_size", 7), ::testing::HasSubstr("vocab_size"));
  EXPECT_THAT(with("model_type", "rwkv"), ::testing::StartsWith("unsupported"));
  EXPECT_EQ(with("auto_map", {{"AutoModel", "evil.Model"}}), "ok");
}

double mean_kl(const Tensor& logits, const Tensor& wanted) {
  const Tensor p = at::log_softmax(wanted, -1), q = at::log_softmax(logits, -1);
  return (p.exp() * (p - q)).sum(-1).mean().item<double>();
}

TEST(Models, StoriesModelGivesTheLogitsOfTransformers) {
  if (!io::shared_data_is_there()) GTEST_SKIP() << "skipped: no shared data";
  const nn::LoadedModel loaded = Loader().load(kStories);
  ASSERT_TRUE(loaded.tokenizer);
  const std::vector<int32_t> tokens = loaded.tokenizer->encode("Once upon a time, there was a little girl named Lily. She loved to play outside");
  const Tensor wanted = transformers_logits({kStories}, {tokens}).at(0);
  const double difference = largest_difference(logits_of(loaded, tokens), wanted);
  std::printf("stories260K: largest logit difference %.2e\n", difference);
  EXPECT_LE(difference, 1e-3);
}

TEST(Models, ExactPathOfSmolLM2IsThatOfTransformersOnTheSameFile) {
  const nn::LoadedModel loaded = Loader().load(testing::smollm2_path());
  EXPECT_EQ(loaded.model->blocks.size(), 30u);
  EXPECT_EQ(loaded.model->original_parameters, 134515008u);
  std::mt19937 random(7);
  std::vector<int32_t> tokens = loaded.tokenizer->encode("A model is made cheaper, and what that costs is measured on text.");
  while (tokens.size() < 256) tokens.push_back(static_cast<int32_t>(random() % 49152));
  const double kl = mean_kl(logits_of(loaded, tokens), transformers_logits({testing::smollm2_path()}, {tokens}).at(0));
  std::printf("SmolLM2-135M Q4_1, exact path: mean KL %.2e on %zu tokens\n", kl, tokens.size());
  EXPECT_LE(kl, 1e-4);
}

TEST(Models, PackedPathOfSmolLM2ReadsAtOnceAndTokenByTokenAlike) {
  const c10::InferenceMode inference;
  const nn::LoadedModel loaded = Loader().load(testing::smollm2_path());
  const std::vector<int32_t> tokens = loaded.tokenizer->encode("<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n",
                                                               {.add_special = true, .parse_special = true});
  EXPECT_EQ(tokens.size(), 16u);
  const Tensor exact = logits_of(loaded, tokens);
  loaded.model->set_execution(nn::Execution::packed);
  const Tensor at_once = loaded.model->forward(nn::Batch::single(tokens, nullptr)).logits;
  nn::SequenceState state(loaded.model->spec);
  std::vector<Tensor> rows;
  for (const int32_t& token : tokens) rows.push_back(loaded.model->forward(nn::Batch::single(std::span(&token, 1), &state)).logits);
  EXPECT_TRUE(at::equal(at::cat(rows, 0), at_once));
  const double kl = mean_kl(at_once, exact);
  std::printf("SmolLM2-135M Q4_1, packed path: mean KL %.2e to the exact one\n", kl);
  EXPECT_LE(kl, 1e-2);  // 3e-3 here and on text; a broken kernel gives 1 and more
}

}  // namespace
}  // namespace frugal::models
