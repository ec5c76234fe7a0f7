#include "io/quantized_layout.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "formats/format.h"
#include "formats/half.h"
#include "io/safetensors.h"
#include "io/test_tools.h"

namespace frugal::io {
namespace {

namespace fs = std::filesystem;
using formats::GroupedWeight;

std::vector<float> decode(const StoredTerm& term) {
  std::vector<float> values(static_cast<size_t>(rows_of(term) * columns_of(term)));
  for (int64_t r = 0; r < rows_of(term); ++r) decode_row(term, r, &values[static_cast<size_t>(r * columns_of(term))]);
  return values;
}

std::vector<float> floats_of(const TensorView& view) {
  std::vector<float> values(view.bytes.size() / static_cast<size_t>(formats::format_at(view.format).block_bytes));
  formats::format_at(view.format).decode(view.bytes.data(), values.data(), static_cast<int64_t>(values.size()));
  return values;
}

// One rounding to the format that the reference computed in: F16, BF16 or F32.
std::vector<float> rounded_to(std::vector<float> values, const std::string& format) {
  for (float& value : values) {
    if (format == "F16") value = formats::round_to_f16(value);
    if (format == "BF16") value = formats::bf16_to_float(formats::float_to_bf16(value));
  }
  return values;
}

std::string scale_format_of(const StoredTerm& term) {
  if (const auto* grouped = std::get_if<std::shared_ptr<const GroupedWeight>>(&term.value)) return (*grouped)->scale_format;
  if (const auto* fp8 = std::get_if<std::shared_ptr<const Fp8Weight>>(&term.value)) return (*fp8)->scale_format;
  return "F32";
}

const std::string& oracle_folder() {
  static const TemporaryFolder folder;
  static const std::string path = [] {
    run_oracle("make_io_quantized.py", "write " + folder.path());
    return folder.path();
  }();
  return path;
}

// Compares every module of a folder of the oracle with what its reference decodes. `exact_scale`: the reference computes in
// the format of the scales (compressed-tensors) instead of in float32.
int expect_equal_to_reference(const std::string& folder, bool exact_scale) {
  const auto checkpoint = open_checkpoint(folder);
  const auto file = MappedFile::open(folder + "/expected.safetensors");
  const SafetensorsFile expected = read_safetensors(file->bytes(), file->path());
  std::set<std::string> names;
  for (const TensorView& view : expected.tensors) names.insert(view.name);
  EXPECT_EQ(quantized_modules(*checkpoint), names) << folder;
  for (const TensorView& view : expected.tensors) {
    const auto weight = read_quantized(*checkpoint, view.name);
    if (!weight) {
      ADD_FAILURE() << folder << " " << view.name << " was not read";
      continue;
    }
    const StoredTerm& term = weight->terms.at(0);
    EXPECT_EQ(view.shape, (std::vector<int64_t>{rows_of(term), columns_of(term)}));
    std::vector<float> ours = decode(term);
    if (exact_scale) ours = rounded_to(std::move(ours), scale_format_of(term));
    EXPECT_EQ(ours, floats_of(view)) << folder << " " << view.name;
  }
  return static_cast<int>(expected.tensors.size());
}

TEST(QuantizedLayout, CompressedTensorsDecodesAsThePackageDoes) {
  EXPECT_EQ(expect_equal_to_reference(oracle_folder() + "/pack-quantized", true), 17);
  EXPECT_EQ(expect_equal_to_reference(oracle_folder() + "/int-quantized", true), 5);
  EXPECT_EQ(expect_equal_to_reference(oracle_folder() + "/float-quantized", true), 3);
}

TEST(QuantizedLayout, CompressedTensorsActivationsAreRead) {
  using Kind = formats::ActivationQuant::Kind;
  const auto packed = open_checkpoint(oracle_folder() + "/pack-quantized");
  EXPECT_EQ(read_quantized(*packed, "model.layers.0.mlp.up_proj")->activation.kind, Kind::none);
  EXPECT_EQ(read_quantized(*packed, "model.layers.16.mlp.up_proj")->activation, (formats::ActivationQuant{Kind::per_token, 8, 0}));
  const auto bytes = open_checkpoint(oracle_folder() + "/int-quantized");
  EXPECT_EQ(read_quantized(*bytes, "model.layers.1.mlp.up_proj")->activation, (formats::ActivationQuant{Kind::per_tensor, 8, 1.125f}));
}

TEST(QuantizedLayout, GptqAndAwqDecodeByTheirDescriptions) {
  int count = 0;
  for (const auto& entry : fs::directory_iterator(oracle_folder())) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("gptq") || name == "awq") count += expect_equal_to_reference(entry.path().string(), false);
  }
  EXPECT_EQ(count, 37);
  const auto symmetric = read_quantized(*open_checkpoint(oracle_folder() + "/gptq-other-4-32-0"), "model.layers.0.self_attn.q_proj");
  EXPECT_TRUE(std::get<std::shared_ptr<const GroupedWeight>>(symmetric->terms[0].value)->symmetric);
}

TEST(QuantizedLayout, BlockFp8AndBitsandbytesDecodeByTheirDescriptions) {
  EXPECT_EQ(expect_equal_to_reference(oracle_folder() + "/fp8", false), 1);
  EXPECT_EQ(expect_equal_to_reference(oracle_folder() + "/bitsandbytes", false), 2);
}

// ---- writing --------------------------------------------------------------------------------------------------------

std::mt19937& random_source() {
  static std::mt19937 source(testing::test_seed());
  return source;
}

struct GroupedCase {
  int64_t rows, columns;
  int bits;
  int64_t group_size;
  bool symmetric = true, float_zeros = false, shuffled = false;
  std::string scale_format = "F32";
};

std::shared_ptr<const GroupedWeight> random_grouped(const GroupedCase& c) {
  auto weight = std::make_shared<GroupedWeight>(formats::make_grouped({c.rows, c.columns, c.bits, c.group_size, c.symmetric}));
  weight->float_zeros = c.float_zeros;
  weight->scale_format = c.scale_format;
  auto& random = random_source();
  std::vector<uint8_t> codes(static_cast<size_t>(c.columns));
  for (int64_t r = 0; r < c.rows; ++r) {
    for (auto& code : codes) code = static_cast<uint8_t>(random() % (1u << c.bits));
    formats::pack_row(*weight, r, codes.data());
  }
  std::uniform_real_distribution<float> uniform(0.01f, 0.1f);
  for (float& scale : weight->scales) scale = uniform(random);
  weight->scales = rounded_to(weight->scales, c.scale_format);
  for (float& zero : weight->zeros) zero = c.float_zeros ? uniform(random) * 50 : static_cast<float>(random() % (1u << c.bits));
  if (c.float_zeros) weight->zeros = rounded_to(weight->zeros, c.scale_format);
  for (int64_t i = 0; c.shuffled && i < c.columns; ++i) weight->group_index.push_back(static_cast<int32_t>(random() % static_cast<uint64_t>(weight->groups())));
  return weight;
}

std::shared_ptr<const Fp8Weight> random_fp8(int64_t rows, int64_t columns, int64_t block_rows, int64_t block_columns) {
  auto weight = std::make_shared<Fp8Weight>();
  weight->rows = rows;
  weight->columns = columns;
  weight->block_rows = block_rows;
  weight->block_columns = block_columns;
  auto codes = std::make_shared<std::vector<std::byte>>(static_cast<size_t>(rows * columns));
  for (std::byte& code : *codes) code = static_cast<std::byte>(random_source()() % 126);
  weight->codes = *codes;
  weight->owner = codes;
  weight->scales.assign(static_cast<size_t>((rows + block_rows - 1) / block_rows * weight->scale_columns()), 0.5f);
  weight->scales[0] = 0.25f;
  weight->input = formats::ActivationQuant::Kind::per_token;
  return weight;
}

BlockWeight random_block(const std::string& format, int64_t rows, int64_t columns) {
  const formats::Format& row = formats::format_at(format);
  std::vector<float> values(static_cast<size_t>(rows * columns));
  for (float& value : values) value = static_cast<float>(random_source()() % 2001) / 1000 - 1;
  auto bytes = std::make_shared<std::vector<std::byte>>(formats::bytes_of(row, values.size()));
  row.encode(values.data(), nullptr, bytes->data(), rows * columns);
  return {format, rows, columns, *bytes, bytes};
}

std::shared_ptr<const formats::SparseWeight> random_sparse(formats::SparsePattern pattern, int n, int m, bool grouped) {
  const int64_t rows = 9, columns = 48;
  std::vector<float> dense(static_cast<size_t>(rows * columns));
  std::vector<uint8_t> keep(dense.size());
  for (size_t i = 0; i < dense.size(); ++i) {
    dense[i] = static_cast<float>(random_source()() % 2001) / 1000 - 1;
    keep[i] = pattern == formats::SparsePattern::bitmap ? random_source()() % 2 : 0;
  }
  for (size_t i = 0; i < dense.size() && pattern == formats::SparsePattern::n_of_m; i += static_cast<size_t>(m)) {
    for (int kept = 0; kept < n;) {
      uint8_t& choice = keep[i + random_source()() % static_cast<unsigned>(m)];
      kept += choice ? 0 : 1;
      choice = 1;
    }
  }
  auto weight = std::make_shared<formats::SparseWeight>(formats::make_sparse(dense.data(), keep.data(), rows, columns, "F16"));
  weight->pattern = pattern;
  if (pattern == formats::SparsePattern::n_of_m) {
    weight->n = n;
    weight->m = m;
  }
  if (grouped) {
    weight->values.clear();
    weight->grouped = *random_grouped({rows, columns, 3, 20, false});
  }
  formats::validate(*weight, "test");
  return weight;
}

// A model folder of these modules, as a saver writes it.
void write_folder(const TemporaryFolder& folder, const std::map<std::string, StoredWeight>& modules, bool own_layout_only = false) {
  QuantizedWriter writer(own_layout_only);
  for (const auto& [name, weight] : modules) writer.add(name, weight);
  write_model_tensors(folder.path(), writer.take_tensors());
  Json config = {{"model_type", "llama"}};
  if (const Json quantization = writer.quantization_config(); !quantization.is_null()) config["quantization_config"] = quantization;
  folder.write("config.json", config.dump());
  if (!writer.modules().is_null()) folder.write("frugal.json", Json{{"modules", writer.modules()}}.dump());
}

void expect_same_weight(const StoredWeight& in, const StoredWeight& out, const std::string& name) {
  EXPECT_EQ(in.activation, out.activation) << name;
  ASSERT_EQ(in.terms.size(), out.terms.size()) << name;
  for (size_t i = 0; i < in.terms.size(); ++i) {
    const auto* factors = std::get_if<LowRankWeight>(&in.terms[i].value);
    if (!factors) {
      EXPECT_EQ(decode(in.terms[i]), decode(out.terms[i])) << name;
      continue;
    }
    const auto& other = std::get<LowRankWeight>(out.terms[i].value);
    EXPECT_EQ(decode(*factors->first), decode(*other.first)) << name;
    EXPECT_EQ(decode(*factors->second), decode(*other.second)) << name;
  }
}

using Kind = formats::ActivationQuant::Kind;

std::map<std::string, StoredWeight> expressible_modules() {
  std::map<std::string, StoredWeight> modules;
  const auto add = [&](const std::string& name, StoredTerm term, formats::ActivationQuant activation = {}) {
    modules["model.layers." + name] = {{std::move(term)}, activation};
  };
  for (int bits = 1; bits <= 8; ++bits) {
    add(fmt::format("{}.sym", bits), {random_grouped({5, 64, bits, 32, true, false, false, bits % 2 ? "F16" : "BF16"})});
    add(fmt::format("{}.asym", bits), {random_grouped({37, 64, bits, 16, false})});
    add(fmt::format("{}.channel", bits), {random_grouped({6, 50, bits, 50, bits % 2 == 0})});
  }
  add("9.w4a8", {random_grouped({5, 64, 4, 32})}, {Kind::per_token, 8, 0});
  add("9.w8a8", {random_grouped({5, 64, 8, 64})}, {Kind::per_token, 8, 0});
  add("9.w8a8_static", {random_grouped({5, 64, 8, 64})}, {Kind::per_tensor, 8, 0.5f});
  add("9.w8a8_asym", {random_grouped({5, 64, 8, 64, false})}, {Kind::per_token, 8, 0});
  add("9.fp8_channel", {random_fp8(5, 64, 1, 64)});
  add("9.fp8_tensor", {random_fp8(5, 64, 5, 64)});
  add("9.fp8_block", {random_fp8(256, 128, 128, 64)});
  add("9.plain", {random_block("BF16", 5, 64)});
  return modules;
}

TEST(QuantizedLayout, CompressedTensorsReadsWhatWeWrite) {
  const TemporaryFolder folder;
  const auto modules = expressible_modules();
  for (const auto& [name, weight] : modules) EXPECT_EQ(cannot_express_in_compressed_tensors(weight), "") << name;
  write_folder(folder, modules);
  EXPECT_FALSE(fs::exists(folder / "frugal.json"));
  // One scheme is said for all linear layers, and the rest is ignored.
  const TemporaryFolder single;
  write_folder(
      single,
      {{"a", {{{random_grouped({5, 64, 4, 32})}}, {}}}, {"b", {{{random_grouped({7, 96, 4, 32})}}, {}}}, {"lm_head", {{{random_block("F16", 5, 64)}}, {}}}});
  const Json config = read_json_in_directory(single.path(), "config.json")["quantization_config"];
  EXPECT_EQ(config["ignore"], (Json::array({"lm_head"})));
  EXPECT_EQ(config["config_groups"]["group_0"]["targets"], (Json::array({"Linear"})));
  run_oracle("make_io_quantized.py", "check " + folder.path() + " " + single.path());
  const auto file = MappedFile::open(folder / "decoded.safetensors");
  const SafetensorsFile decoded = read_safetensors(file->bytes(), file->path());
  EXPECT_EQ(decoded.tensors.size(), modules.size() - 1);  // one is plain
  for (const TensorView& view : decoded.tensors) {
    const StoredTerm& term = modules.at(view.name).terms[0];
    EXPECT_EQ(rounded_to(decode(term), scale_format_of(term)), floats_of(view)) << view.name;
  }
  const auto checkpoint = open_checkpoint(folder.path());
  for (const auto& [name, weight] : modules) {
    const auto back = read_quantized(*checkpoint, name);
    if (name.ends_with("plain")) {
      EXPECT_FALSE(back);
      EXPECT_EQ(floats_of(checkpoint->at(name + ".weight")), decode(weight.terms[0]));
    } else {
      expect_same_weight(weight, *back, name);
    }
  }
}

TEST(QuantizedLayout, WhatCompressedTensorsCannotExpressGoesToOurOwnLayout) {
  std::map<std::string, StoredWeight> modules;
  const auto add = [&](const std::string& name, std::vector<StoredTerm> terms, formats::ActivationQuant activation = {}) {
    modules[name] = {std::move(terms), activation};
  };
  add("float_zeros", {{random_grouped({5, 70, 3, 32, false, true, false, "F16"})}});
  add("ragged", {{random_grouped({5, 70, 2, 32, false})}}, {Kind::per_token, 8, 0});
  add("shuffled", {{random_grouped({5, 64, 4, 32, true, false, true})}}, {Kind::per_tensor, 8, 0.25f});
  add("blocks", {{random_block("Q4_1", 4, 64)}});
  add("bitmap", {{random_sparse(formats::SparsePattern::bitmap, 0, 0, false)}});
  add("bitmap_grouped", {{random_sparse(formats::SparsePattern::bitmap, 0, 0, true)}});
  add("two_of_four", {{random_sparse(formats::SparsePattern::n_of_m, 2, 4, false)}});
  add("four_of_eight_grouped", {{random_sparse(formats::SparsePattern::n_of_m, 4, 8, true)}});
  auto codebook = std::make_shared<CodebookWeight>();
  codebook->rows = 3;
  codebook->columns = 5;
  codebook->block = 4;
  for (int i = 0; i < 16; ++i) codebook->table[static_cast<size_t>(i)] = static_cast<float>(i) / 8 - 1;
  codebook->codes = {0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0};
  codebook->scales = {1, 2, 3, 4};
  add("codebook", {{std::shared_ptr<const CodebookWeight>(codebook)}});
  const LowRankWeight factors{std::make_shared<StoredTerm>(StoredTerm{random_block("F16", 8, 70)}),
                              std::make_shared<StoredTerm>(StoredTerm{random_grouped({5, 8, 8, 8})})};
  add("low_rank", {{factors}});
  add("sum", {{random_grouped({5, 70, 2, 32, false})}, {factors}, {random_block("F32", 5, 70)}});
  for (const auto& [name, weight] : modules) EXPECT_NE(cannot_express_in_compressed_tensors(weight), "") << name;
  add("expressible", {{random_grouped({5, 64, 4, 32})}});
  add("fp8", {{random_fp8(5, 64, 2, 30)}});
  for (const bool own_layout_only : {false, true}) {
    const TemporaryFolder folder;
    write_folder(folder, modules, own_layout_only);
    const auto checkpoint = open_checkpoint(folder.path());
    EXPECT_EQ(quantized_modules(*checkpoint).size(), modules.size());
    for (const auto& [name, weight] : modules) {
      const auto back = read_quantized(*checkpoint, name);
      ASSERT_TRUE(back) << name;
      expect_same_weight(weight, *back, name);
    }
    EXPECT_EQ(checkpoint->config.contains("quantization_config"), !own_layout_only);
  }
}

TEST(QuantizedLayout, TheBytesOnDiskAreWhatTheFormatCounts) {
  std::vector<std::shared_ptr<const GroupedWeight>> grouped = {random_grouped({5, 70, 3, 32, false, true, false, "F16"}),
                                                               random_grouped({37, 64, 4, 16, false}),
                                                               random_grouped({5, 64, 4, 32, true, false, true, "BF16"})};
  for (const auto& weight : grouped) {
    QuantizedWriter writer(true);
    writer.add("m", {{{weight}}, {}});
    uint64_t bytes = 0;
    for (const TensorToWrite& tensor : writer.take_tensors()) bytes += size_of(tensor);
    EXPECT_EQ(bytes, weight->storage_bytes());
  }
  for (const bool is_grouped : {false, true}) {
    for (const auto pattern : {formats::SparsePattern::bitmap, formats::SparsePattern::n_of_m}) {
      const auto weight = random_sparse(pattern, 2, 4, is_grouped);
      QuantizedWriter writer(true);
      writer.add("m", {{{weight}}, {}});
      uint64_t bytes = 0;
      for (const TensorToWrite& tensor : writer.take_tensors()) bytes += size_of(tensor);
      EXPECT_EQ(bytes, weight->storage_bytes());
    }
  }
}

}  // namespace
}  // namespace frugal::io
