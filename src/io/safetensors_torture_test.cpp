// Section A of the torture list: every row by its id, as a typed error or as a file that loads.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ctime>

#include "io/checkpoint.h"
#include "io/safetensors.h"
#include "io/test_tools.h"

namespace frugal::io {
namespace {

std::string file_of(const std::string& header, const std::string& data) { return raw<uint64_t>(header.size()) + header + data; }

// A header of one F32 tensor "a" of shape [2] with these fields in place of its own.
std::string entry(const std::string& dtype, const std::string& shape, const std::string& offsets, const std::string& name = "\"a\"") {
  return "{" + name + ":{\"dtype\":" + dtype + ",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}}";
}
const std::string kData8(8, 'x');
const std::string kGood = file_of(entry("\"F32\"", "[2]", "[0,8]"), kData8);

std::string outcome(const std::string& bytes) {
  return outcome_of([&] { read_safetensors(bytes_of_text(bytes), "t.safetensors"); });
}

struct Row {
  const char* id;
  std::string bytes;
  const char* expected;  // start of the outcome
};

std::vector<Row> header_rows() {
  const std::string f32 = "\"F32\"";
  return {
      {"A1", "", "corrupt file"},
      {"A1", "x", "corrupt file"},
      {"A1", std::string(7, '\0'), "corrupt file"},
      {"A1", std::string(8, '\0'), "corrupt file"},
      {"A2", raw<uint64_t>(0) + "{}", "corrupt file"},
      {"A3", raw<uint64_t>(uint64_t{1} << 63) + "{}", "corrupt file"},
      {"A3", raw<uint64_t>(UINT64_MAX) + "{}", "corrupt file"},
      {"A4", raw<uint64_t>(100000001) + "{}", "corrupt file"},
      {"A5", raw<uint64_t>(kGood.size() - 7) + kGood.substr(8), "corrupt file"},
      {"A7", raw<uint64_t>(8) + "PK\3\4    ", "corrupt file"},
      {"A7",
       raw<uint64_t>(8) + "\x7f"
                          "ELF    ",
       "corrupt file"},
      {"A7", raw<uint64_t>(8) + "<html>  ", "corrupt file"},
      {"A7", "<!DOCTYPE html><html></html>", "corrupt file"},
      {"A8", kGood + "x", "corrupt file"},
      {"A9", file_of(" " + entry(f32, "[2]", "[0,8]"), kData8), "corrupt file"},
      {"A9", file_of(entry(f32, "[2]", "[0,8]") + "   ", kData8), "ok"},
      {"A10", file_of(entry(f32, "[2]", "[0,8]", "\"\xff\""), kData8), "corrupt file"},
      {"A10", file_of("\xEF\xBB\xBF" + entry(f32, "[2]", "[0,8]"), kData8), "corrupt file"},
      {"A10", file_of(entry(f32, "[2]", "[0,8]") + std::string(1, '\0') + "{}", kData8), "corrupt file"},
      {"A11",
       file_of("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", kData8),
       "corrupt file"},
      {"A11", file_of("{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", kData8), "corrupt file"},
      {"A11", file_of("{\"__metadata__\":{},\"__metadata__\":{}}", ""), "corrupt file"},
      {"A12", file_of(entry(f32, "[2]", "[0,8]", "\"\""), kData8), "corrupt file"},
      {"A12", file_of(entry(f32, "[2]", "[0,8]", "\"" + std::string(65536, 'n') + "\""), kData8), "corrupt file"},
      {"A12", file_of(entry(f32, "[2]", "[0,8]", "\"../../x\""), kData8), "corrupt file"},
      {"A12", file_of(entry(f32, "[2]", "[0,8]", "\"/etc/x\""), kData8), "corrupt file"},
      {"A12", file_of(entry(f32, "[2]", "[0,8]", "\"a\\u0000b\""), kData8), "corrupt file"},
      {"A12", file_of(entry(f32, "[2]", "[0,8]", "\"a\\u202eb\""), kData8), "corrupt file"},
      {"A13", file_of("{\"a\":{\"dtype\":\"U8\",\"shape\":[5],\"data_offsets\":[0,5]},\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,8]}}", kData8),
       "corrupt file"},
      {"A14", file_of("{\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]},\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,8]}}", kData8),
       "corrupt file"},
      {"A15", file_of(entry(f32, "[2]", "[8,16]"), kData8 + kData8), "corrupt file"},
      {"A16", file_of(entry(f32, "[2]", "[8,0]"), kData8), "corrupt file"},
      {"A17", file_of(entry(f32, "[3]", "[0,12]"), kData8), "corrupt file"},
      {"A18", file_of(entry(f32, "[2]", "[0.0,8]"), kData8), "corrupt file"},
      {"A18", file_of(entry(f32, "[2]", "[0,8e0]"), kData8), "corrupt file"},
      {"A18", file_of(entry(f32, "[2]", "[-1,8]"), kData8), "corrupt file"},
      {"A18", file_of(entry(f32, "[2]", "[0,18446744073709551616]"), kData8), "corrupt file"},
      {"A18", file_of(entry(f32, "[2]", "[0,\"8\"]"), kData8), "corrupt file"},
      {"A18", file_of(entry(f32, "[2]", "[8]"), kData8), "corrupt file"},
      {"A18", file_of(entry(f32, "[2]", "[0,8,8]"), kData8), "corrupt file"},
      {"A19", file_of(entry(f32, "[4294967296,4294967296]", "[0,8]"), kData8), "corrupt file"},
      {"A19", file_of(entry(f32, "[9223372036854775808,2,0]", "[0,0]"), ""), "corrupt file"},
      {"A19", file_of(entry(f32, "[9223372036854775807,9223372036854775807,0]", "[0,0]"), ""), "corrupt file"},
      {"A19", file_of(entry(f32, "[-1]", "[0,8]"), kData8), "corrupt file"},
      {"A19", file_of(entry(f32, "[1.5]", "[0,8]"), kData8), "corrupt file"},
      {"A20", file_of(entry(f32, "[2]", "[0,7]"), kData8.substr(1)), "corrupt file"},
      {"A20", file_of(entry(f32, "[2]", "[0,9]"), kData8 + "x"), "corrupt file"},
      {"A21", file_of(entry("\"F31\"", "[2]", "[0,8]"), kData8), "unsupported"},
      {"A21", file_of(entry("\"f32\"", "[2]", "[0,8]"), kData8), "unsupported"},
      {"A21", file_of(entry("null", "[2]", "[0,8]"), kData8), "corrupt file"},
      {"A21", file_of(entry("3", "[2]", "[0,8]"), kData8), "corrupt file"},
      {"A22", file_of(entry(f32, "[0,7]", "[0,0]"), ""), "ok"},
      {"A22", file_of(entry("\"F64\"", "[]", "[0,8]"), kData8), "ok"},
      {"A23", file_of("{\"__metadata__\":{\"format\":3}}", ""), "corrupt file"},
      {"A23", file_of("{\"__metadata__\":{\"format\":null}}", ""), "corrupt file"},
      {"A23", file_of("{\"__metadata__\":[]}", ""), "corrupt file"},
      {"A23", file_of("{\"__metadata__\":{\"format\":\"pt\"}}", ""), "ok"},
      {"A24", file_of("{\"__metadata__\":{\"x\":" + std::string(100000, '['), ""), "corrupt file"},
      {"A24", file_of("{\"__metadata__\":" + std::string(100000, '['), ""), "corrupt file"},
      {"A-", file_of("{}", ""), "ok"},
      {"A-", file_of("[]", ""), "corrupt file"},
      {"A-", file_of("{\"a\":3}", ""), "corrupt file"},
      {"A-", file_of("{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", kData8), "corrupt file"},
      {"A-", file_of("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"more\":1}}", kData8), "corrupt file"},
      {"A-", file_of("{\"a\":{\"dtype\":\"F32\",\"shape\":[[2]],\"data_offsets\":[0,8]}}", kData8), "corrupt file"},
      {"A-", file_of("{\"a\":{\"dtype\":\"F32\",\"shape\":{},\"data_offsets\":[0,8]}}", kData8), "corrupt file"},
  };
}

TEST(SafetensorsTorture, EveryBrokenHeaderIsATypedError) {
  EXPECT_EQ(outcome(kGood), "ok");
  for (const Row& row : header_rows()) {
    const std::string got = outcome(row.bytes);
    EXPECT_TRUE(got.starts_with(row.expected)) << row.id << ": " << printable(row.bytes, 120) << "\n got " << got;
    if (got != "ok") {
      EXPECT_NE(got.find("t.safetensors: "), got.npos) << row.id << " " << got;
      EXPECT_TRUE(got.find("offset") != got.npos || got.find("header") != got.npos) << row.id << " " << got;
      EXPECT_LT(got.size(), 1000u) << row.id;
    }
  }
}

TEST(SafetensorsTorture, A6_AFileCutAtAnyByteIsRefused) {
  for (size_t size = 0; size < kGood.size(); ++size) EXPECT_NE(outcome(kGood.substr(0, size)), "ok") << size;
}

TEST(SafetensorsTorture, A19_TenThousandDimensions) {
  std::string shape = "[1";
  for (int i = 1; i < 10000; ++i) shape += ",1";
  EXPECT_TRUE(outcome(file_of(entry("\"F32\"", shape + "]", "[0,4]"), "abcd")).starts_with("corrupt file"));
}

TEST(SafetensorsTorture, A23_A25_AMillionEntriesAreReadInLinearTime) {
  const auto seconds_for = [](int count) {
    std::string keys = "{\"__metadata__\":{", tensors = "{";
    for (int i = 0; i < count; ++i) {
      keys += fmt::format("{}\"k{}\":\"\"", i ? "," : "", i);
      tensors += fmt::format("{}\"t{}\":{{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[{},{}]}}", i ? "," : "", i, i, i + 1);
    }
    const std::clock_t begin = std::clock();  // of this process: the machine is shared
    EXPECT_EQ(outcome(file_of(keys + "}}", "")), "ok");
    EXPECT_EQ(outcome(file_of(tensors + "}", std::string(static_cast<size_t>(count), 'x'))), "ok");
    return static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
  };
  const double quarter = seconds_for(250000), whole = seconds_for(1000000);
  EXPECT_LT(whole, 8 * quarter + 1) << quarter;  // quadratic: 16 times
}

TEST(SafetensorsTorture, A26_AMisalignedTensorIsCopied) {
  const TemporaryFolder folder;
  std::string header = entry("\"F32\"", "[2]", "[0,8]");
  while ((header.size() + 8) % 4 == 0) header += " ";
  const float values[2] = {1.5f, -2.5f};
  folder.write("config.json", "{}");
  folder.write("model.safetensors", file_of(header, std::string(reinterpret_cast<const char*>(values), 8)));
  const auto checkpoint = open_checkpoint(folder.path());
  const TensorView& view = checkpoint->at("a");
  EXPECT_EQ(reinterpret_cast<uintptr_t>(view.bytes.data()) % 4, 0u);
  EXPECT_EQ(reinterpret_cast<const float*>(view.bytes.data())[1], -2.5f);
  EXPECT_EQ(checkpoint->copies.size(), 1u);
}

TEST(SafetensorsTorture, A27_AReplacedOrGrownFileDoesNotChangeAnOpenOne) {
  const TemporaryFolder folder;
  folder.write("config.json", "{}");
  const std::string path = folder.write("model.safetensors", kGood);
  const auto checkpoint = open_checkpoint(folder.path());
  folder.write("other", file_of("{}", ""));
  std::filesystem::rename(folder / "other", path);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(checkpoint->at("a").bytes.data()), 8), kData8);
  const std::string grown = folder.write("model.safetensors", kGood);
  const auto second = open_checkpoint(folder.path());
  std::ofstream(grown, std::ios::app) << "more";
  EXPECT_EQ(second->at("a").bytes.size(), 8u);
}

TEST(SafetensorsTorture, A28_WhatIsNotARegularFileIsRefused) {
  const TemporaryFolder folder;
  folder.write("config.json", "{}");
  const std::string path = folder / "model.safetensors";
  const auto expect_refused = [&](const char* what) {
    EXPECT_TRUE(outcome_of([&] { open_checkpoint(folder.path()); }).find("error: ") != std::string::npos ||
                outcome_of([&] { open_checkpoint(folder.path()); }).starts_with("corrupt"))
        << what << ": " << outcome_of([&] { open_checkpoint(folder.path()); });
    std::filesystem::remove_all(path);
  };
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  expect_refused("FIFO");
  std::filesystem::create_directory(path);
  expect_refused("directory");
  std::filesystem::create_symlink("/dev/zero", path);
  expect_refused("/dev/zero");
  std::filesystem::create_symlink("model.safetensors", path);
  expect_refused("symlink loop");
  if (::geteuid() != 0) {
    folder.write("model.safetensors", kGood);
    ::chmod(path.c_str(), 0);
    expect_refused("0-permission");
  }
  folder.write("model.safetensors", kGood);
  if (::truncate(path.c_str(), off_t{1} << 40) == 0) expect_refused("sparse terabyte");
}

TEST(Safetensors, TheReferenceReadsWhatWeWriteAndTheOtherWayRound) {
  const TemporaryFolder folder;
  std::vector<TensorToWrite> tensors;
  tensors.push_back(owned_tensor<uint8_t>("bytes", "U8", {3}, {1, 2, 3}));
  tensors.push_back(owned_tensor<float>("floats", "F32", {2, 2}, {1, 2, 3, 4}));
  tensors.push_back(owned_tensor<uint16_t>("half", "BF16", {1}, {0x3f80}));
  tensors.push_back(owned_tensor<float>("empty", "F32", {0, 4}, {}));
  tensors.push_back({"filled", "I64", {2}, [](std::span<std::byte> bytes) { std::fill(bytes.begin(), bytes.end(), std::byte{1}); }, {}, {}});
  for (const uint64_t limit : {uint64_t{1} << 30, uint64_t{20}}) {
    const TemporaryFolder model;
    model.write("config.json", "{}");
    write_model_tensors(model.path(), tensors, limit);
    const auto checkpoint = open_checkpoint(model.path());
    EXPECT_EQ(checkpoint->tensors.size(), 5u);
    EXPECT_TRUE(checkpoint->copies.empty());
    EXPECT_EQ(checkpoint->at("filled").shape, (std::vector<int64_t>{2}));
    EXPECT_EQ(checkpoint->files.size(), limit == 20 ? 2u : 1u);
    const std::string oracle = run_oracle("make_io_safetensors.py", model.path());
    EXPECT_EQ(oracle,
              "bytes uint8 [3] [1, 2, 3]\nempty float32 [0, 4] []\nfilled int64 [2] [72340172838076673, 72340172838076673]\n"
              "floats float32 [2, 2] [[1.0, 2.0], [3.0, 4.0]]\nhalf bfloat16 [1] [1.0]\nsaved again\n");
    const auto file = MappedFile::open(model / "again.safetensors");
    const SafetensorsFile again = read_safetensors(file->bytes(), "again");
    EXPECT_EQ(again.metadata, (SafetensorsMetadata{{"by", "reference"}}));
    EXPECT_EQ(again.tensors.size(), 5u);
  }
  EXPECT_THROW(write_safetensors(folder / "x", {{"q", "Q4_0", {32}, {}, {}, {}}}), Error);
  EXPECT_THROW(write_safetensors(folder / "x", {tensors[0], tensors[0]}), Error);
  EXPECT_FALSE(std::filesystem::exists(folder / "x"));
}

}  // namespace
}  // namespace frugal::io
