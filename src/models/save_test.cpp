// What we write, read by us, by transformers and by compressed-tensors.
#include "models/gguf_weight.h"
#include "models/row_order.h"
#include "models/test_tools.h"
#include "text/tokenizer.h"

namespace frugal::models {
namespace {

using formats::GroupedWeight;
using nn::SaveFormat;

// Round-to-nearest grouped integers: a weight for the writers, not a method.
std::shared_ptr<GroupedWeight> round_to_grid(const Tensor& dense, int bits, int64_t asked_group, bool symmetric) {
  const int64_t group = std::min(asked_group, dense.size(1));
  auto weight = std::make_shared<GroupedWeight>();
  weight->rows = dense.size(0);
  weight->columns = dense.size(1);
  weight->bits = bits;
  weight->group_size = group;
  weight->symmetric = symmetric;
  weight->codes.resize(static_cast<size_t>(weight->rows * weight->words_per_row()));
  std::vector<uint8_t> codes(static_cast<size_t>(weight->columns));
  const auto top = static_cast<float>((1 << bits) - 1);
  for (int64_t r = 0; r < weight->rows; ++r) {
    const float* row = dense.const_data_ptr<float>() + r * weight->columns;
    for (int64_t g = 0; g < weight->groups(); ++g) {
      const int64_t begin = g * group, end = std::min(begin + group, weight->columns);
      const float low = std::min(0.0f, *std::min_element(row + begin, row + end)), high = std::max(0.0f, *std::max_element(row + begin, row + end));
      // A power of two: scale and minimum are then F16 numbers whatever the zero point.
      const float scale = std::exp2(std::ceil(std::log2(std::max(1e-4f, symmetric ? 2 * std::max(-low, high) / top : (high - low) / top))));
      const float zero = symmetric ? static_cast<float>(1 << (bits - 1)) : std::round(-low / scale);
      weight->scales.push_back(scale);
      weight->zeros.push_back(zero);
      for (int64_t c = begin; c < end; ++c) codes[static_cast<size_t>(c)] = static_cast<uint8_t>(std::clamp(std::round(row[c] / scale) + zero, 0.0f, top));
    }
    formats::pack_row(*weight, r, codes.data());
  }
  return weight;
}

void quantize_blocks(nn::Model& model, int bits, bool symmetric, int64_t group = 4) {
  for (nn::Block& block : model.blocks) {
    for (nn::Linear* linear : block.linears()) {
      linear->replace(std::make_shared<nn::GroupedKind>(round_to_grid(linear->dense(), bits, group, symmetric)));
    }
  }
}

// compressed-tensors 0.20 fails on 4-bit zero points of at most 8 rows, which fill one word: it takes a transposed column for
// contiguous.
bool has_tiny_matrix(nn::Model& model) {
  const std::vector<nn::Linear*> linears = model.blocks.front().linears();
  return std::any_of(linears.begin(), linears.end(), [](const nn::Linear* linear) { return linear->out_features() <= 8; });
}

void expect_same_weights(const nn::Model& a, const nn::Model& b) {
  ASSERT_EQ(a.blocks.size(), b.blocks.size());
  EXPECT_TRUE(at::equal(a.embedding->dense(), b.embedding->dense()));
  EXPECT_TRUE(at::equal(a.head.dense(), b.head.dense()));
  EXPECT_EQ(a.spec.tied_embeddings, b.spec.tied_embeddings);
  for (size_t i = 0; i < a.blocks.size(); ++i) {
    nn::Block x = a.blocks[i], y = b.blocks[i];
    ASSERT_EQ(x.linears().size(), y.linears().size());
    for (size_t k = 0; k < x.linears().size(); ++k) {
      EXPECT_TRUE(at::equal(x.linears()[k]->dense(), y.linears()[k]->dense())) << x.linears()[k]->name();
      EXPECT_EQ(x.linears()[k]->bias().defined(), y.linears()[k]->bias().defined());
    }
  }
}

TEST(ModelSaver, DirectoriesComeBackEqualAndTransformersReadsThem) {
  const io::TemporaryFolder folder;
  std::vector<std::string> paths;
  std::vector<std::vector<int32_t>> tokens;
  std::vector<Tensor> ours;
  for (const std::string& name : TinyModels::get().names()) {
    SCOPED_TRACE(name);
    const nn::LoadedModel loaded = Loader().load(TinyModels::get().path(name));
    Loader().save(loaded, folder / name, {.format = SaveFormat::huggingface});
    const nn::LoadedModel again = Loader().load(folder / name);
    expect_same_weights(*loaded.model, *again.model);
    EXPECT_TRUE(again.tokenizer && again.chat_template);
    paths.push_back(folder / name);
    tokens.push_back(ids_of(TinyModels::get().expected(name).at("tokens")));
    ours.push_back(logits_of(again, tokens.back()));
    EXPECT_LE(relative_difference(ours.back(), TinyModels::get().expected(name).at("logits")), kRounding);
  }
  const std::vector<Tensor> theirs = transformers_logits(paths, tokens);
  for (size_t i = 0; i < paths.size(); ++i) {
    SCOPED_TRACE(paths[i]);
    EXPECT_LE(relative_difference(ours[i], theirs[i]), 1e-3);
  }
}

TEST(ModelSaver, GroupedIntegersAreReadByCompressedTensors) {
  const io::TemporaryFolder folder;
  std::vector<std::string> paths;
  std::vector<std::vector<int32_t>> tokens;
  std::vector<Tensor> ours;
  for (const std::string name : {"llama", "qwen2", "qwen3", "gemma3"}) {
    for (const auto& [bits, symmetric] : {std::pair{4, true}, {8, true}, {3, false}, {4, false}}) {
      SCOPED_TRACE(name);
      nn::LoadedModel loaded = Loader().load(TinyModels::get().path(name));
      if (bits == 4 && !symmetric && has_tiny_matrix(*loaded.model)) continue;
      quantize_blocks(*loaded.model, bits, symmetric);
      const std::string path = folder / fmt::format("{}-{}{}", name, bits, symmetric ? "" : "-asymmetric");
      Loader().save(loaded, path, {});
      const nn::LoadedModel again = Loader().load(path);
      expect_same_weights(*loaded.model, *again.model);
      EXPECT_LT(again.file_bytes, Loader().load(TinyModels::get().path(name)).file_bytes);
      paths.push_back(path);
      tokens.push_back(ids_of(TinyModels::get().expected(name).at("tokens")));
      ours.push_back(logits_of(again, tokens.back()));
    }
  }
  const std::vector<Tensor> theirs = transformers_logits(paths, tokens);
  for (size_t i = 0; i < paths.size(); ++i) {
    const double difference = relative_difference(ours[i], theirs[i]);
    std::printf("%s: relative logit difference to transformers + compressed-tensors %.2e\n", paths[i].c_str(), difference);
    EXPECT_LE(difference, 1e-3);
  }
}

// Packed while it is read, a model lets its weights go, computes the same, and reads them again when they are asked for.
TEST(ModelSaver, WeightsThatWerePackedWhileLoadingComeBack) {
  const io::TemporaryFolder folder;
  nn::LoadedModel loaded = Loader().load(TinyModels::get().path("llama"));
  quantize_blocks(*loaded.model, 4, false, 16);
  Loader().save(loaded, folder / "saved", {.format = SaveFormat::frugal});
  const nn::LoadedModel packed = Loader().load(folder / "saved", nn::Execution::packed);
  for (nn::Linear* linear : packed.model->blocks.front().linears()) EXPECT_NE(linear->kinds().front()->packed(), nullptr) << linear->name();
  const std::vector<int32_t> tokens = ids_of(TinyModels::get().expected("llama").at("tokens"));
  loaded.model->set_execution(nn::Execution::packed);
  EXPECT_TRUE(at::equal(logits_of(packed, tokens), logits_of(loaded, tokens)));
  expect_same_weights(*loaded.model, *packed.model);
  Loader().save(packed, folder / "again", {.format = SaveFormat::frugal});
  expect_same_weights(*loaded.model, *Loader().load(folder / "again").model);
  packed.model->set_execution(nn::Execution::expanded);
  loaded.model->set_execution(nn::Execution::expanded);
  EXPECT_TRUE(at::equal(logits_of(packed, tokens), logits_of(loaded, tokens)));
}

TEST(ModelSaver, GgufKeepsLogitsAndTokenizerBothWays) {
  const io::TemporaryFolder folder;
  std::vector<std::string> paths;
  std::vector<std::vector<int32_t>> tokens;
  std::vector<Tensor> wanted;
  for (const std::string& name : TinyModels::get().names()) {
    SCOPED_TRACE(name);
    const nn::LoadedModel loaded = Loader().load(TinyModels::get().path(name));
    const std::string reason = Loader().cannot_express(*loaded.model, SaveFormat::gguf);
    if (name == "llama_dynamic" || name == "qwen2_window") {
      EXPECT_THAT(reason, ::testing::HasSubstr(name == "llama_dynamic" ? "dynamic" : "sliding window"));
      continue;
    }
    ASSERT_EQ(reason, "");
    Loader().save(loaded, folder / (name + ".gguf"), {.float_format = "F32"});
    const nn::LoadedModel gguf = Loader().load(folder / (name + ".gguf"));
    expect_same_weights(*loaded.model, *gguf.model);
    Loader().save(gguf, folder / name, {});
    const nn::LoadedModel back = Loader().load(folder / name);
    const auto expected = TinyModels::get().expected(name);
    const std::vector<int32_t> ids = ids_of(expected.at("tokens"));
    EXPECT_LE(relative_difference(logits_of(gguf, ids), expected.at("logits")), kRounding);
    EXPECT_LE(relative_difference(logits_of(back, ids), expected.at("logits")), kRounding);
    const std::string text = "The quick brown fox, naïve café 東京 12345";
    ASSERT_TRUE(gguf.tokenizer && back.tokenizer && back.chat_template);
    EXPECT_EQ(gguf.tokenizer->encode(text), loaded.tokenizer->encode(text));
    EXPECT_EQ(back.tokenizer->encode(text), loaded.tokenizer->encode(text));
    EXPECT_EQ(back.eos_text, loaded.eos_text);
    if (name == "llama" || name == "qwen2" || name == "qwen3") {  // transformers' GGUF loader knows neither scalings nor windows
      paths.insert(paths.end(), {folder / (name + ".gguf"), folder / name});
      tokens.insert(tokens.end(), 2, ids);
      wanted.insert(wanted.end(), 2, expected.at("logits"));
    }
  }
  const std::vector<Tensor> theirs = transformers_logits(paths, tokens);
  for (size_t i = 0; i < paths.size(); ++i) EXPECT_LE(relative_difference(theirs[i], wanted[i]), 1e-3) << paths[i];
}

// Every kind of weight, and blocks of other sizes than the rest: only frugal's own layouts hold that.
TEST(ModelSaver, FrugalDirectoryKeepsEveryKindAndPrunedBlocks) {
  const io::TemporaryFolder folder;
  nn::LoadedModel loaded = Loader().load(TinyModels::get().path("llama"));
  nn::Model& model = *loaded.model;
  nn::Block& block = model.blocks[0];
  const Tensor query = block.query.dense();
  block.query.replace(std::make_shared<nn::GroupedKind>(round_to_grid(query, 3, 5, false)));
  const Tensor sparse = at::where(block.key.dense().abs() > 0.2, block.key.dense(), at::zeros({})).contiguous();
  block.key.replace(std::make_shared<nn::SparseKind>(
      std::make_shared<const formats::SparseWeight>(formats::make_sparse(sparse.const_data_ptr<float>(), sparse.size(0), sparse.size(1), "F16"))));
  const auto random = [](int64_t rows, int64_t columns) { return std::make_shared<nn::DenseKind>(at::randn({rows, columns}).to(at::kHalf)); };
  const auto factors = std::make_shared<nn::LowRankKind>(random(3, block.value.in_features()), random(block.value.out_features(), 3));
  block.value.replace({factors, std::make_shared<nn::GroupedKind>(round_to_grid(block.value.dense(), 2, 6, false))});
  // The second block loses its MLP.
  nn::Block& second = model.blocks[1];
  second.spec.intermediate = model.spec.blocks[1].intermediate = 0;
  second.gate = second.up = second.down = nn::Linear();
  EXPECT_NE(Loader().cannot_express(model, SaveFormat::huggingface), "");
  EXPECT_NE(Loader().cannot_express(model, SaveFormat::gguf), "");
  EXPECT_EQ(Loader().cannot_express(model, SaveFormat::frugal), "");
  EXPECT_THROW(Loader().save(loaded, folder / "refused", {.format = SaveFormat::huggingface}), Error);
  EXPECT_FALSE(std::filesystem::exists(folder / "refused"));

  Loader().save(loaded, folder / "saved", {.manifest = {{"chain", {"test"}}}});
  const nn::LoadedModel again = Loader().load(folder / "saved");
  expect_same_weights(model, *again.model);
  EXPECT_EQ(again.model->original_parameters, model.original_parameters);
  EXPECT_EQ(again.manifest["chain"], Json({"test"}));
  const std::vector<int32_t> tokens = {5, 6, 7, 8, 9};
  EXPECT_TRUE(at::equal(logits_of(again, tokens), logits_of(loaded, tokens)));
  // Expanded on request, what is not structure fits the other formats.
  EXPECT_THROW(Loader().save(loaded, folder / "saved", {.format = SaveFormat::frugal}), Error) << "exists";
}

TEST(ModelSaver, WeightsWithoutWordsAreExpandedOnRequest) {
  const io::TemporaryFolder folder;
  nn::LoadedModel loaded = Loader().load(TinyModels::get().path("llama"));
  quantize_blocks(*loaded.model, 3, false);
  EXPECT_THAT(Loader().cannot_express(*loaded.model, SaveFormat::gguf), ::testing::HasSubstr("model.layers.0.self_attn.q_proj"));
  Loader().save(loaded, folder / "a.gguf", {.float_format = "F32", .expand = true});
  expect_same_weights(*loaded.model, *Loader().load(folder / "a.gguf").model);
}

TEST(GgufWeight, GroupedIntegersBecomeBlocksWithTheSameNumbers) {
  for (const auto& [bits, symmetric, format] : {std::tuple(4, true, "Q4_0"), {4, false, "Q4_1"}, {5, true, "Q5_0"}, {5, false, "Q5_1"}, {8, true, "Q8_0"}}) {
    for (const int64_t group : {32, 64}) {
      SCOPED_TRACE(format);
      const auto weight = round_to_grid(at::randn({6, 128}), bits, group, symmetric);
      const nn::Linear linear("layer", std::make_shared<nn::GroupedKind>(weight));
      ASSERT_EQ(cannot_express_in_gguf(linear), "");
      const io::TensorToWrite tensor = gguf_tensor(linear, {.name = "t"});
      EXPECT_EQ(tensor.format, format);
      std::vector<std::byte> bytes(io::size_of(tensor));
      tensor.fill(bytes);
      const Tensor decoded = at::empty({6, 128});
      formats::format_at(format).decode(bytes.data(), decoded.mutable_data_ptr<float>(), decoded.numel());
      EXPECT_TRUE(at::equal(decoded, linear.dense()));
      if (!symmetric) continue;
      const nn::BlockKind blocks(formats::format_at(format), {bytes, nullptr}, 6, 128);
      EXPECT_TRUE(at::equal(nn::GroupedKind(grouped_from_blocks(blocks)).dense(), decoded));
    }
  }
}

TEST(RowOrder, InterleavedAndSplitAreInverse) {
  const std::vector<int64_t> split = split_from_interleaved(24, 6), interleaved = interleaved_from_split(24, 6);
  for (int64_t i = 0; i < 24; ++i) EXPECT_EQ(interleaved[static_cast<size_t>(split[static_cast<size_t>(i)])], i);
  EXPECT_EQ(split[0], 0);
  EXPECT_EQ(split[1], 2);  // second of the first half: pair 1, first member
  EXPECT_EQ(split[3], 1);  // first of the second half: pair 0, second member
}

}  // namespace
}  // namespace frugal::models
