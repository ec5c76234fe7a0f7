// Section B of the torture list: every row that the container decides, by its id. (What an architecture or a tokenizer
// demands beyond it, B23, B24 and B28, is tested where these are built, in text/ and models/.)
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "io/checkpoint.h"
#include "io/gguf.h"
#include "io/test_tools.h"

namespace frugal::io {
namespace {

std::string text(const std::string& value) { return raw<uint64_t>(value.size()) + value; }
std::string key(const std::string& name, uint32_t type, const std::string& value) { return text(name) + raw(type) + value; }
std::string u32_key(const std::string& name, uint32_t value) { return key(name, 4, raw(value)); }
std::string f32_key(const std::string& name, float value) { return key(name, 6, raw(value)); }
std::string text_key(const std::string& name, const std::string& value) { return key(name, 8, text(value)); }
std::string array_key(const std::string& name, uint32_t type, uint64_t count, const std::string& items) { return key(name, 9, raw(type) + raw(count) + items); }

std::string info(const std::string& name, const std::vector<uint64_t>& dims, uint32_t type, uint64_t offset) {
  std::string out = text(name) + raw<uint32_t>(static_cast<uint32_t>(dims.size()));
  for (const uint64_t dim : dims) out += raw(dim);
  return out + raw(type) + raw(offset);
}

struct Parts {
  std::vector<std::string> keys, infos;
  std::string data;
  uint64_t alignment = 32;
  uint32_t version = 3;
};

std::string file_of(const Parts& parts) {
  std::string out = "GGUF" + raw(parts.version) + raw<uint64_t>(parts.infos.size()) + raw<uint64_t>(parts.keys.size());
  for (const std::string& part : parts.keys) out += part;
  for (const std::string& part : parts.infos) out += part;
  if (!parts.infos.empty()) out.resize((out.size() + parts.alignment - 1) / parts.alignment * parts.alignment, 'p');
  return out + parts.data;
}
std::string with_keys(std::vector<std::string> keys) { return file_of({std::move(keys), {}, "", 32, 3}); }
std::string with_infos(std::vector<std::string> infos, const std::string& data = std::string(64, 'd')) { return file_of({{}, std::move(infos), data, 32, 3}); }

std::string outcome(const std::string& bytes) {
  return outcome_of([&] { read_gguf(bytes_of_text(bytes), "t.gguf"); });
}

struct Row {
  const char* id;
  std::string bytes;
  const char* expected;
};

void expect_rows(const std::vector<Row>& rows) {
  for (const Row& row : rows) {
    const std::string got = outcome(row.bytes);
    EXPECT_TRUE(got.starts_with(row.expected)) << row.id << ": " << printable(row.bytes, 120) << "\n got " << got;
    EXPECT_TRUE(got == "ok" || got.find("t.gguf") != got.npos) << row.id << " " << got;
    EXPECT_LT(got.size(), 1000u) << row.id;
  }
}

TEST(GgufTorture, HeaderAndKeys) {
  const std::string counts = raw<uint64_t>(0) + raw<uint64_t>(0);
  const uint64_t huge = uint64_t{1} << 63;
  expect_rows({
      {"B1", "FUGG" + raw<uint32_t>(3) + counts, "unsupported"},
      {"B1", "GGML" + raw<uint32_t>(3) + counts, "corrupt file"},
      {"B1", "", "corrupt file"},
      {"B2", "GGUF" + raw<uint32_t>(0) + counts, "corrupt file"},
      {"B2", "GGUF" + raw<uint32_t>(1) + counts, "unsupported"},
      {"B2", "GGUF" + raw<uint32_t>(4) + counts, "unsupported"},
      {"B2", "GGUF" + raw<uint32_t>(0x03000000) + counts, "unsupported"},
      {"B3", "GGUF" + raw<uint32_t>(3) + raw(UINT64_MAX) + raw<uint64_t>(0), "corrupt file"},
      {"B3", "GGUF" + raw<uint32_t>(3) + raw<uint64_t>(0) + raw(UINT64_MAX), "corrupt file"},
      {"B3", "GGUF" + raw<uint32_t>(3) + raw(huge) + raw(huge), "corrupt file"},
      {"B3", "GGUF" + raw<uint32_t>(3) + raw<uint64_t>(100) + raw<uint64_t>(0) + std::string(1200, '\0'), "corrupt file"},
      {"B4", "GGUF" + raw<uint32_t>(3) + counts, "ok"},
      {"B4", "GGUF" + raw<uint32_t>(2) + counts, "ok"},
      {"B5", with_keys({raw(UINT64_MAX) + "k" + raw<uint32_t>(7) + "\1"}), "corrupt file"},
      {"B5", with_keys({key(std::string(65536, 'k'), 7, "\1")}), "corrupt file"},
      {"B5", with_keys({key(std::string(65535, 'k'), 7, "\1")}), "ok"},
      {"B5", with_keys({key("", 7, "\1") + "padding"}), "corrupt file"},
      {"B6", with_keys({key("k\xc3\xa9y", 7, "\1")}), "corrupt file"},
      {"B6", with_keys({u32_key("k", 1), u32_key("k", 2)}), "corrupt file"},
      {"B7", with_keys({key("k", 13, "\1")}), "corrupt file"},
      {"B7", with_keys({key("k", UINT32_MAX, "\1")}), "corrupt file"},
      {"B7", with_keys({array_key("k", 13, 1, "\1")}), "corrupt file"},
      {"B8", with_keys({array_key("k", 0, huge, "x")}), "corrupt file"},
      {"B8", with_keys({array_key("k", 10, uint64_t{1} << 61, "x")}), "corrupt file"},
      {"B8", with_keys({array_key("k", 8, 3, std::string(23, '\0'))}), "corrupt file"},
      {"B10", with_keys({key("k", 7, "\2")}), "corrupt file"},
      {"B10", with_keys({array_key("k", 7, 2, "\1\2")}), "corrupt file"},
      {"B11", with_keys({key("k", 8, raw<uint64_t>(4) + "abc")}), "corrupt file"},
      {"B12", with_keys({u32_key("general.alignment", 0)}), "corrupt file"},
      {"B12", with_keys({u32_key("general.alignment", 3)}), "corrupt file"},
      {"B12", with_keys({u32_key("general.alignment", 13)}), "corrupt file"},
      {"B12", with_keys({u32_key("general.alignment", 0x80000000u)}), "corrupt file"},
      {"B12", with_keys({u32_key("general.alignment", 1u << 20)}), "ok"},
      {"B12", with_keys({key("general.alignment", 5, raw<int32_t>(32))}), "corrupt file"},
      {"B12", with_keys({text_key("general.alignment", "32")}), "corrupt file"},
      {"B12", with_keys({u32_key("general.alignment", 32), u32_key("general.alignment", 32)}), "corrupt file"},
  });
  std::string nested = raw<uint32_t>(9);
  for (int i = 0; i < 10000; ++i) nested += raw<uint64_t>(1) + raw<uint32_t>(9);
  expect_rows({{"B9", with_keys({key("k", 9, nested)}), "unsupported"}});
}

TEST(GgufTorture, TensorInfosThatLieAreRefused) {
  const uint64_t top = (uint64_t{1} << 63) - 1;
  expect_rows({
      {"B14", with_infos({info("t", {}, 0, 0)}), "ok"},
      {"B14", with_infos({info("t", {1, 1, 1, 1, 1}, 0, 0)}), "corrupt file"},
      {"B14", with_infos({text("t") + raw(UINT32_MAX) + raw<uint64_t>(1) + raw<uint32_t>(0) + raw<uint64_t>(0)}), "corrupt file"},
      {"B15", with_infos({info("t", {0}, 0, 0)}), "corrupt file"},
      {"B15", with_infos({info("t", {UINT64_MAX}, 0, 0)}), "corrupt file"},
      {"B15", with_infos({info("t", {top}, 0, 0)}), "corrupt file"},
      {"B15", with_infos({info("t", {uint64_t{1} << 32, uint64_t{1} << 31}, 0, 0)}), "corrupt file"},
      {"B15", with_infos({info("t", {uint64_t{1} << 32, uint64_t{1} << 32}, 0, 0)}), "corrupt file"},
      {"B15", with_infos({info("t", {(uint64_t{1} << 62) + 16}, 0, 0)}), "corrupt file"},  // times 4 bytes wraps to 64
      {"B16", with_infos({info("t", {33}, 2, 0)}), "corrupt file"},
      {"B16", with_infos({info("t", {16, 2}, 2, 0)}), "corrupt file"},
      {"B17", with_infos({info("t", {32}, 4, 0)}), "unsupported"},
      {"B17", with_infos({info("t", {32}, 5, 0)}), "unsupported"},
      {"B17", with_infos({info("t", {32}, 31, 0)}), "unsupported"},
      {"B17", with_infos({info("t", {32}, 32, 0)}), "unsupported"},
      {"B17", with_infos({info("t", {32}, 33, 0)}), "unsupported"},
      {"B17", with_infos({info("t", {32}, 255, 0)}), "unsupported"},
      {"B17", with_infos({info("t", {32}, UINT32_MAX, 0)}), "unsupported"},
      {"B18", with_infos({info(std::string(64, 'n'), {1}, 0, 0)}), "ok"},
      {"B18", with_infos({info(std::string(65, 'n'), {1}, 0, 0)}), "corrupt file"},
      {"B18", with_infos({info(std::string(1 << 20, 'n'), {1}, 0, 0)}), "corrupt file"},
      {"B18", with_infos({info("", {1}, 0, 0)}), "corrupt file"},
      {"B18", with_infos({info("t", {1}, 0, 0), info("t", {1}, 0, 32)}), "corrupt file"},
      {"B19", with_infos({info("t", {1}, 0, 4)}), "corrupt file"},
      {"B19", with_infos({info("a", {9}, 0, 0), info("b", {1}, 0, 32)}, std::string(128, 'd')), "corrupt file"},
      {"B19", with_infos({info("a", {1}, 0, 32), info("b", {1}, 0, 0)}), "corrupt file"},
      {"B19", with_infos({info("t", {1}, 0, 0 - uint64_t{32})}), "corrupt file"},
      {"B19", with_infos({info("t", {1}, 0, 0)}, ""), "corrupt file"},
      {"B19", with_infos({info("a", {top / 4 - 15}, 0, 0), info("b", {top / 4 - 15}, 0, top - 63)}), "corrupt file"},
      {"B19", with_infos({info("a", {1}, 0, 0), info("b", {8}, 0, 32)}), "ok"},
      {"B20", file_of({{}, {info("t", {1}, 0, 0)}, "\x7f\xff\xff\xff" + std::string(28, '\xff'), 32, 3}), "ok"},
      {"B26", with_infos({info("t", {32}, 2, 0)}, "\xff\x7f" + std::string(16, '\x11')), "ok"},
  });
}

TEST(GgufTorture, B19_AFileCutAnywhereIsRefused) {
  const std::string whole = file_of({{text_key("general.architecture", "llama"), array_key("a", 8, 2, text("x") + text("yy"))},
                                     {info("a", {9}, 0, 0), info("b", {32, 2}, 2, 64)},
                                     std::string(64 + 36, 'd'),
                                     32,
                                     3});
  EXPECT_EQ(outcome(whole), "ok");
  for (size_t size = 0; size < whole.size(); ++size) EXPECT_TRUE(outcome(whole.substr(0, size)).starts_with("corrupt file")) << size;
}

// A GGUF file with these keys of a llama and one tensor for each of `tensors`, opened as a checkpoint.
std::string opened(std::vector<std::string> keys, int tensors = 4) {
  const TemporaryFolder folder;
  Parts parts;
  parts.keys = {text_key("general.architecture", "llama")};
  for (std::string& more : keys) parts.keys.push_back(std::move(more));
  for (int i = 0; i < tensors; ++i) parts.infos.push_back(info("t" + std::to_string(i), {8}, 0, static_cast<uint64_t>(i) * 32));
  parts.data = std::string(static_cast<size_t>(tensors) * 32, 'd');
  folder.write("m.gguf", file_of(parts));
  return outcome_of([&] { open_checkpoint(folder / "m.gguf"); });
}

TEST(GgufTorture, B13_B21_NumbersThatEveryReaderNeeds) {
  const auto expect_corrupt = [](const char* id, std::vector<std::string> keys) {
    const std::string got = opened(std::move(keys));
    EXPECT_TRUE(got.starts_with("corrupt file")) << id << " " << got;
    EXPECT_NE(got.find("key llama."), got.npos) << id << " " << got;
  };
  const std::string layers = u32_key("llama.block_count", 2), heads = u32_key("llama.attention.head_count", 8);
  EXPECT_EQ(opened({layers, heads, u32_key("llama.attention.head_count_kv", 2), u32_key("llama.embedding_length", 64), f32_key("llama.rope.freq_base", 1e4f)}),
            "ok");
  EXPECT_EQ(opened({key("llama.block_count", 10, raw<uint64_t>(2)), heads}), "ok");
  expect_corrupt("B13", {text_key("llama.block_count", "2")});
  expect_corrupt("B13", {f32_key("llama.block_count", 2)});
  expect_corrupt("B13", {array_key("llama.block_count", 4, 1, raw<uint32_t>(2))});
  expect_corrupt("B21", {u32_key("llama.attention.head_count", 0)});
  expect_corrupt("B21", {heads, u32_key("llama.attention.head_count_kv", 0)});
  expect_corrupt("B21", {heads, u32_key("llama.attention.head_count_kv", 16)});
  expect_corrupt("B21", {heads, u32_key("llama.attention.head_count_kv", 3)});
  expect_corrupt("B21", {u32_key("llama.embedding_length", 0)});
  expect_corrupt("B21", {u32_key("llama.embedding_length", 0x80000000u)});
  expect_corrupt("B21", {heads, u32_key("llama.embedding_length", 63)});
  expect_corrupt("B21", {u32_key("llama.block_count", 0)});
  expect_corrupt("B21", {u32_key("llama.block_count", 0x80000000u)});
  expect_corrupt("B21", {u32_key("llama.block_count", 5)});
  for (const float bad : {0.0f, -1.0f, std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    expect_corrupt("B21", {f32_key("llama.rope.freq_base", bad)});
    expect_corrupt("B21", {f32_key("llama.attention.layer_norm_rms_epsilon", bad)});
  }
  expect_corrupt("B21", {u32_key("llama.context_length", 0)});
  expect_corrupt("B21", {key("llama.context_length", 10, raw(uint64_t{1} << 40))});
  expect_corrupt("B21", {u32_key("llama.expert_count", 4), u32_key("llama.expert_used_count", 5)});
  expect_corrupt("B21", {layers, array_key("llama.attention.head_count", 4, 1, raw<uint32_t>(8))});
  EXPECT_EQ(opened({layers, array_key("llama.attention.head_count", 4, 2, raw<uint32_t>(8) + raw<uint32_t>(0))}), "ok");
}

TEST(GgufTorture, B22_B27_Vocabulary) {
  const auto tokens = [](int count) {
    std::string items;
    for (int i = 0; i < count; ++i) items += text("t");
    return array_key("tokenizer.ggml.tokens", 8, static_cast<uint64_t>(count), items);
  };
  const auto floats = [](int count) {
    return array_key("tokenizer.ggml.scores", 6, static_cast<uint64_t>(count), std::string(static_cast<size_t>(count) * 4, '\0'));
  };
  const auto types = [](int count) {
    return array_key("tokenizer.ggml.token_type", 5, static_cast<uint64_t>(count), std::string(static_cast<size_t>(count) * 4, '\0'));
  };
  EXPECT_EQ(opened({tokens(3), floats(3), types(3), u32_key("tokenizer.ggml.eos_token_id", 2), u32_key("tokenizer.ggml.padding_token_id", UINT32_MAX)}), "ok");
  EXPECT_TRUE(opened({tokens(3), floats(2)}).starts_with("corrupt file"));
  EXPECT_TRUE(opened({tokens(3), types(4)}).starts_with("corrupt file"));
  EXPECT_TRUE(opened({tokens(3), u32_key("tokenizer.ggml.bos_token_id", 3)}).starts_with("corrupt file"));
  EXPECT_TRUE(opened({tokens(3), u32_key("tokenizer.ggml.eos_token_id", UINT32_MAX)}).starts_with("corrupt file"));
  const TemporaryFolder folder;
  folder.write("rows.gguf", file_of({{tokens(3)}, {info("token_embd.weight", {4, 2}, 0, 0)}, std::string(32, 'd'), 32, 3}));
  EXPECT_TRUE(outcome_of([&] { open_checkpoint(folder / "rows.gguf"); }).starts_with("corrupt file"));
  EXPECT_TRUE(opened({text_key("tokenizer.chat_template", std::string(64 << 20, ' '))}).starts_with("corrupt file"));
}

TEST(GgufTorture, B25_Splits) {
  const auto u16_key = [](const std::string& name, uint16_t value) { return key(name, 2, raw(value)); };
  const auto shard = [&](uint16_t index, uint16_t count, const std::string& tensor, std::vector<std::string> more = {}) {
    Parts parts;
    parts.keys = {u16_key("split.no", index), u16_key("split.count", count), key("split.tensors.count", 5, raw<int32_t>(2))};
    for (std::string& item : more) parts.keys.push_back(std::move(item));
    parts.infos = {info(tensor, {8}, 0, 0)};
    parts.data = std::string(32, 'd');
    return file_of(parts);
  };
  const std::string first = "m-00001-of-00002.gguf", second = "m-00002-of-00002.gguf";
  const auto outcome_of_pair = [&](const std::string& a, const std::string& b, const std::string& opened_name) {
    const TemporaryFolder folder;
    if (!a.empty()) folder.write(first, a);
    if (!b.empty()) folder.write(second, b);
    return outcome_of([&] { open_checkpoint(folder / opened_name); });
  };
  EXPECT_EQ(outcome_of_pair(shard(0, 2, "a"), shard(1, 2, "b"), first), "ok");
  EXPECT_TRUE(outcome_of_pair(shard(0, 2, "a"), shard(1, 2, "b"), second).starts_with("invalid input"));
  EXPECT_TRUE(outcome_of_pair(shard(0, 0, "a"), shard(1, 2, "b"), first).starts_with("corrupt file"));
  EXPECT_TRUE(outcome_of_pair(shard(0, 3, "a"), shard(1, 3, "b"), first).starts_with("corrupt file"));
  EXPECT_TRUE(outcome_of_pair(shard(0, 65535, "a"), shard(1, 2, "b"), first).starts_with("corrupt file"));
  EXPECT_TRUE(outcome_of_pair(shard(0, 2, "a"), "", first).starts_with("i/o error"));
  EXPECT_TRUE(outcome_of_pair(shard(0, 2, "a"), shard(0, 2, "b"), first).starts_with("corrupt file"));
  EXPECT_TRUE(outcome_of_pair(shard(0, 2, "a"), shard(1, 3, "b"), first).starts_with("corrupt file"));
  EXPECT_TRUE(outcome_of_pair(shard(0, 2, "a"), shard(1, 2, "a"), first).starts_with("corrupt file"));  // B18: in two shards
  EXPECT_TRUE(
      outcome_of_pair(shard(0, 2, "a", {text_key("general.architecture", "llama")}), shard(1, 2, "b", {text_key("general.architecture", "gpt2")}), first)
          .starts_with("corrupt file"));
  // The names of shards come from the path that was given, so none can lead elsewhere.
  const TemporaryFolder folder;
  folder.write("x.gguf", shard(0, 2, "a"));
  EXPECT_TRUE(outcome_of([&] { open_checkpoint(folder / "x.gguf"); }).starts_with("corrupt file"));
}

}  // namespace
}  // namespace frugal::io
