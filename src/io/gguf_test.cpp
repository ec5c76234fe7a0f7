#include "io/gguf.h"

#include <gtest/gtest.h>

#include "base/json.h"
#include "io/checkpoint.h"
#include "io/gguf_writer.h"
#include "io/sha256.h"
#include "io/test_tools.h"

namespace frugal::io {
namespace {

std::string type_name(GgufType type) {
  constexpr const char* kNames[] = {"UINT8", "INT8", "UINT16", "INT16", "UINT32", "INT32", "FLOAT32", "BOOL", "STRING", "ARRAY", "UINT64", "INT64", "FLOAT64"};
  return kNames[static_cast<uint32_t>(type)];
}

std::string latin1(const std::string& bytes) {
  std::string utf8;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80) {
      utf8 += c;
    } else {
      utf8 += static_cast<char>(0xc0 | byte >> 6);
      utf8 += static_cast<char>(0x80 | (byte & 0x3f));
    }
  }
  return utf8;
}

Json json_of(const MetadataValue& value) {
  return std::visit(
      [](const auto& held) -> Json {
        using T = std::decay_t<decltype(held)>;
        if constexpr (std::is_same_v<T, std::string>) {
          return latin1(held);
        } else if constexpr (std::is_arithmetic_v<T>) {
          return held;
        } else {
          Json items = Json::array();
          std::string text;
          for (const typename T::value_type& item : held) {
            if constexpr (std::is_same_v<typename T::value_type, std::string>) {
              items.push_back(latin1(item));
              text += item + "\n";
            } else if constexpr (std::is_same_v<typename T::value_type, double>) {
              items.push_back(item);
              const auto single = static_cast<float>(item);
              for (const std::byte b : std::as_bytes(std::span(&single, 1))) text += fmt::format("{:02x}", static_cast<int>(b));
              text += "\n";
            } else {
              items.push_back(item);
              text += fmt::format("{}\n", static_cast<int64_t>(item));
            }
          }
          if (items.size() <= 64) return items;
          return {{"count", items.size()}, {"sha256", sha256_hex(bytes_of_text(text))}};
        }
      },
      value);
}

// The same reading, said as the Python package says it.
void expect_same_as_oracle(const std::string& path) {
  const GgufModel model = open_gguf(path);
  const Json oracle = parse_json(run_oracle("make_io_gguf.py", "dump " + path), "oracle");
  EXPECT_EQ(model.content.alignment, oracle["alignment"].get<uint64_t>()) << path;
  EXPECT_EQ(model.content.metadata.values().size(), oracle["fields"].size()) << path;
  for (const auto& [key, field] : oracle["fields"].items()) {
    const GgufKeyType type = model.content.types.at(key);
    Json types = Json::array();
    if (type.is_array) types.push_back("ARRAY");
    if (field["types"].size() > types.size()) types.push_back(type_name(type.type));  // the package knows no type of an empty array
    EXPECT_EQ(types, field["types"]) << path << " " << key;
    EXPECT_EQ(json_of(*model.content.metadata.find(key)), field["value"]) << path << " " << key;
  }
  ASSERT_EQ(model.content.tensors.size(), oracle["tensors"].size()) << path;
  for (size_t i = 0; i < model.content.tensors.size(); ++i) {
    const TensorView& view = model.content.tensors[i];
    const Json ours = {{"name", view.name}, {"shape", view.shape}, {"type", view.format}, {"sha256", sha256_hex(view.bytes)}};
    EXPECT_EQ(ours, oracle["tensors"][i]) << path;
  }
}

TEST(Gguf, ReadsEveryKindOfKeyAndTensorThatThePackageWrites) {
  const TemporaryFolder folder;
  run_oracle("make_io_gguf.py", "write " + folder / "all.gguf");
  expect_same_as_oracle(folder / "all.gguf");
}

TEST(Gguf, ReadsSmolLm2AsThePackageDoes) {
  const std::string path = testing::smollm2_path();
  expect_same_as_oracle(path);
  const auto checkpoint = open_checkpoint(path);
  EXPECT_EQ(checkpoint->metadata.text("general.architecture"), "llama");
  EXPECT_EQ(checkpoint->at("token_embd.weight").shape, (std::vector<int64_t>{49152, 576}));
  EXPECT_EQ(checkpoint->weight_bytes, 98362432u);
}

TEST(Gguf, ReadsTheSharedVocabulariesAsThePackageDoes) {
  if (!shared_data_is_there()) GTEST_SKIP() << "skipped: no shared data";
  int count = 0;
  for (const char* folder : {"/../shared/data/tokenizers", "/../shared/data/models/stories260K"}) {
    for (const auto& entry : std::filesystem::directory_iterator(std::string(FRUGAL_SOURCE_DIR) + folder)) {
      if (entry.path().extension() != ".gguf") continue;
      // The package needs seconds for each of the larger vocabularies.
      if (entry.file_size() < 1200000) expect_same_as_oracle(entry.path().string());
      EXPECT_EQ(outcome_of([&] { open_checkpoint(entry.path().string()); }), "ok");
      ++count;
    }
  }
  EXPECT_GE(count, 6);
}

TEST(Gguf, WhatWeWriteIsReadByThePackage) {
  const TemporaryFolder folder;
  run_oracle("make_io_gguf.py", "write " + folder / "in.gguf");
  const auto in = open_gguf(folder / "in.gguf");
  for (const uint64_t alignment : {32u, 64u, 4096u}) {
    GgufWriter writer(folder / "out.gguf", alignment);
    writer.set_all(in.content.metadata, in.content.types);
    for (const TensorView& view : in.content.tensors) writer.add(copy_of(view));
    writer.write();
    expect_same_as_oracle(folder / "out.gguf");
    const auto out = open_gguf(folder / "out.gguf");
    auto types = in.content.types;
    types.erase("general.alignment");
    if (alignment != 32) types.emplace("general.alignment", GgufKeyType{false, GgufType::u32});
    EXPECT_EQ(out.content.types, types);
    for (size_t i = 0; i < in.content.tensors.size(); ++i) {
      EXPECT_EQ(sha256_hex(in.content.tensors[i].bytes), sha256_hex(out.content.tensors[i].bytes));
    }
  }
}

TEST(Gguf, ACopyOfSmolLm2HasTheSameKeysSizeAndDataSection) {
  const std::string path = testing::smollm2_path();
  const auto in = open_gguf(path);
  const TemporaryFolder folder;
  GgufWriter writer(folder / "copy.gguf", in.content.alignment);
  writer.set_all(in.content.metadata, in.content.types);
  for (const TensorView& view : in.content.tensors) writer.add(copy_of(view));
  writer.write();
  const auto out = open_gguf(folder / "copy.gguf");
  EXPECT_EQ(out.content.types, in.content.types);
  EXPECT_EQ(out.content.metadata.values(), in.content.metadata.values());
  ASSERT_EQ(out.files[0]->bytes().size(), in.files[0]->bytes().size());
  const auto data_of = [](const GgufModel& model) {
    const auto begin = static_cast<size_t>(model.content.tensors[0].bytes.data() - model.files[0]->bytes().data());
    return sha256_hex(model.files[0]->bytes().subspan(begin));
  };
  EXPECT_EQ(data_of(in), data_of(out));
}

TEST(Gguf, TheWriterChoosesTypesAndRefusesWhatDoesNotFit) {
  const TemporaryFolder folder;
  GgufWriter writer(folder / "x.gguf");
  writer.set("a", uint64_t{1});
  writer.set("b", uint64_t{1} << 40);
  writer.set("c", int64_t{-1});
  writer.set("d", 0.5);
  writer.set("e", std::vector<int64_t>{1, -(int64_t{1} << 40)});
  writer.set("f", std::vector<std::string>{});
  EXPECT_THROW(writer.set("g", uint64_t{256}, GgufKeyType{false, GgufType::u8}), Error);
  EXPECT_THROW(writer.set("g", std::string("x"), GgufKeyType{false, GgufType::u8}), Error);
  EXPECT_THROW(writer.set("sp ace", true), Error);
  EXPECT_THROW(writer.add({std::string(64, 'n'), "F32", {1}, {}, {}, {}}), Error);
  EXPECT_THROW(writer.add({"n", "F8_E4M3", {1}, {}, {}, {}}), Error);
  EXPECT_THROW(writer.add({"n", "Q4_0", {4, 33}, {}, {}, {}}), Error);
  EXPECT_THROW(writer.add({"n", "F32", {0}, {}, {}, {}}), Error);
  writer.write();
  const auto types = open_gguf(folder / "x.gguf").content.types;
  EXPECT_EQ(types.at("a").type, GgufType::u32);
  EXPECT_EQ(types.at("b").type, GgufType::u64);
  EXPECT_EQ(types.at("c").type, GgufType::i32);
  EXPECT_EQ(types.at("d").type, GgufType::f32);
  EXPECT_EQ(types.at("e").type, GgufType::i64);
  EXPECT_EQ(types.at("f").type, GgufType::text);
  EXPECT_FALSE(std::filesystem::exists(folder / "y.gguf"));
  GgufWriter failing(folder / "y.gguf");
  failing.add({"n", "F32", {1}, [](std::span<std::byte>) { fail(ErrorKind::io, "no bytes"); }, {}, {}});
  EXPECT_THROW(failing.write(), Error);
  EXPECT_FALSE(std::filesystem::exists(folder / "y.gguf"));
}

}  // namespace
}  // namespace frugal::io
