// What becomes of rows of every kind, with the tokens written out; rows that cannot be used are in dataset_torture_test.cpp.
#include "data/dataset.h"

#include <gmock/gmock.h>

#include <fstream>

#include "base/rng.h"
#include "base/team.h"
#include "data/test_support.h"

namespace frugal::data {
namespace {

const std::string kQuestion = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n", kAnswered = kQuestion + "[[a<|im_end|>]]\n";

TEST(Dataset, ReadsRowsOfEveryKindBySight) {
  const ByteModel bytes;
  const std::pair<const char*, std::string> rows[] = {
      {R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]})", kAnswered},
      {R"({"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, {"role": "assistant", "content": "a", "extra": null}], "tools": []})",
       kAnswered},
      {R"({"instruction": "q", "output": "a"})", kAnswered},
      {R"({"instruction": "q", "input": "more", "output": "a", "system": "s", "history": [["x", "y"]]})",
       "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n[[y<|im_end|>]]\n<|im_start|>user\nq\nmore<|im_end|>\n"
       "<|im_start|>assistant\n[[a<|im_end|>]]\n"},
      {R"({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]})", kAnswered},
      {R"({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a", "weight": 1}], "system": "s"})",
       "<|im_start|>system\ns<|im_end|>\n" + kAnswered},
      {R"({"text": "abc"})", "a[[bc</s>]]"},
  };
  for (const auto& [row, expected] : rows) {
    const Dataset dataset = load(bytes, "f.jsonl", row);
    ASSERT_EQ(dataset.size(), 1u) << row;
    EXPECT_EQ(bytes.shown(dataset.example(0)), expected) << row;
    EXPECT_FALSE(dataset.pairs);
  }
}

TEST(Dataset, ReadsCallsOfTools) {
  const ByteModel bytes(
      "{% for m in messages %}{{ m.role }}:{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>{{ c | tojson }}{% endfor %}</s>{% endfor %}"
      "{% if add_generation_prompt %}assistant:{% endif %}{{ tools if false }}");
  const std::string expected = R"(user:q</s>assistant:[[<tool_call>{"type": "function", "function": {"name": "w", "arguments": {"x": 1}}}</s>]]tool:r</s>)";
  for (
      const char* row :
      {R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "tool_calls": [{"function": {"name": "w", "arguments": "{\"x\": 1}"}}]}, {"role": "tool", "content": "r"}]})",
       R"({"conversations": [{"from": "human", "value": "q"}, {"from": "function_call", "value": "{\"name\": \"w\", \"arguments\": {\"x\": 1}}"}, {"from": "observation", "value": "r"}]})"}) {
    const Dataset dataset = load(bytes, "f.jsonl", row);
    EXPECT_EQ(bytes.shown(dataset.example(0)), expected);
  }
}

TEST(Dataset, ReadsPreferencesAsPairs) {
  const ByteModel bytes;
  for (
      const char* row :
      {R"({"prompt": "q", "chosen": "a", "rejected": "bad"})",
       R"({"prompt": [{"role": "user", "content": "q"}], "chosen": [{"role": "assistant", "content": "a"}], "rejected": [{"role": "assistant", "content": "bad"}]})",
       R"({"chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "bad"}]})"}) {
    const Dataset dataset = load(bytes, "f.jsonl", std::string(row) + "\n" + row);
    EXPECT_TRUE(dataset.pairs);
    ASSERT_EQ(dataset.size(), 4u) << row;
    EXPECT_EQ(bytes.shown(dataset.example(2)), kAnswered);
    EXPECT_EQ(bytes.shown(dataset.example(3)), kQuestion + "[[bad<|im_end|>]]\n");
    EXPECT_EQ(dataset.report.kept, 2u);
  }
  // An earlier answer belongs to the prompt.
  const std::string prompt = R"([{"role": "user", "content": "q"}, {"role": "assistant", "content": "x"}, {"role": "user", "content": "r"}])";
  const Dataset dataset = load(bytes, "f.jsonl", R"({"system": "s", "chosen": "a", "rejected": "b", "prompt": )" + prompt + "}");
  EXPECT_EQ(bytes.shown(dataset.example(0)),
            "<|im_start|>system\ns<|im_end|>\n" + kQuestion + "x<|im_end|>\n<|im_start|>user\nr<|im_end|>\n<|im_start|>assistant\n[[a<|im_end|>]]\n");
}

TEST(Dataset, MapsTheNamesOfFields) {
  const ByteModel bytes;
  Source source;
  for (const auto& [key, name] :
       {std::pair{"field_messages", "talk"}, {"message_property_mappings.role", "who"}, {"message_property_mappings.content", "says"}})
    field_of(source.fields, key) = name;
  EXPECT_EQ(bytes.shown(load(bytes, "f.jsonl", R"({"talk": [{"who": "human", "says": "q"}, {"who": "gpt", "says": "a"}]})", source).example(0)), kAnswered);
  Source alpaca;
  field_of(alpaca.fields, "field_instruction") = "question";
  field_of(alpaca.fields, "field_output") = "answer";
  EXPECT_EQ(bytes.shown(load(bytes, "f.jsonl", R"({"question": "q", "answer": "a"})", alpaca).example(0)), kAnswered);
  EXPECT_THROW(field_of(source.fields, "field_nothing"), Error);
  EXPECT_EQ(row_kind("sharegpt"), RowKind::sharegpt);
  EXPECT_THROW(row_kind("share-gpt"), Error);
}

TEST(Dataset, ReadsListsAndTexts) {
  const ByteModel bytes;
  const Dataset list = load(bytes, "f.json", " [\n {\"text\": \"a]\\\"}\"},\n{\"text\":\"b\"} ]\n");
  EXPECT_EQ(list.size(), 2u);
  EXPECT_EQ(bytes.shown(list.example(0)), "a[[]\"}</s>]]");
  EXPECT_EQ(load(bytes, "f.json", "{\"text\": \"a\"}\n{\"text\": \"b\"}").fingerprint,
            load(bytes, "f.jsonl", "{\"text\": \"a\"}\n{\"text\": \"b\"}").fingerprint);
  const Dataset text = load(bytes, "f.md", "# a\n\nb\n");
  EXPECT_EQ(bytes.shown(text.example(0)), "#[[ a\n\nb\n</s>]]");
  EXPECT_EQ(load(bytes, "rows", R"({"text": "a"})", {.kind = RowKind::text}).size(), 1u);  // a text
  EXPECT_EQ(load(bytes, "rows", R"({"instruction": "a", "output": "b"})", {.kind = RowKind::alpaca}).size(), 1u);
}

TEST(Dataset, ReadsParquetAsTheSameRows) {
  const ByteModel bytes;
  const testing::TemporaryFolder folder;
  Rng rng(testing::test_seed());
  std::string lines;
  for (int i = 0; i < 40; ++i) {
    lines += fmt::format(R"({{"id": {}, "messages": [{{"role": "user", "content": "q{}"}}, {{"role": "assistant", "content": "{}"}}]}})", i, i,
                         std::string(rng.below(9), 'a'));
    lines += "\n";
  }
  const std::string rows = folder.write("f.jsonl", lines), parquet = folder / "f.parquet";
  testing::run_oracle("make_parquet.py", rows + " " + parquet);
  const Dataset dataset = load_dataset({{parquet}}, {}, bytes.model());
  EXPECT_EQ(dataset.size(), 40u);
  EXPECT_EQ(dataset.fingerprint, load_dataset({{rows}}, {}, bytes.model()).fingerprint);
  folder.write("g.jsonl", lines + R"({"messages": [{"role": "alien", "content": "x"}]})" + "\n");
  testing::run_oracle("make_parquet.py", (folder / "g.jsonl") + " " + parquet);
  try {
    load_dataset({{parquet}}, {}, bytes.model());
    ADD_FAILURE() << "taken";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::invalid_input);
    EXPECT_THAT(error.what(), ::testing::HasSubstr("f.parquet:41: messages[0].role must be one of"));
  }
}

TEST(Dataset, ConcatenatesTextsAndCutsThem) {
  const ByteModel bytes;
  Rng rng(testing::test_seed());
  std::string content, stream;
  for (int i = 0; i < 200; ++i) {
    const std::string text(1 + rng.below(60), static_cast<char>('a' + rng.below(26)));
    content += fmt::format("{{\"text\": \"{}\"}}\n", text);
    stream += text + "</s>";
  }
  const size_t most = 2 + rng.below(50);
  const Dataset dataset = load(bytes, "f.jsonl", content, {}, {.sequence_len = most, .concatenate = true});
  std::string joined;
  for (size_t i = 0; i < dataset.size(); ++i) {
    const Example example = dataset.example(i);
    EXPECT_TRUE(example.tokens.size() == most || i + 1 == dataset.size());
    EXPECT_EQ(std::ranges::count(example.trained, 1), static_cast<std::ptrdiff_t>(example.tokens.size()) - 1);
    for (const int32_t id : example.tokens) joined += bytes.tokenizer->piece(id);
  }
  // What is left at the end, one token, teaches nothing.
  EXPECT_TRUE(joined == stream || (stream.starts_with(joined) && dataset.tokens.size() % most == 0)) << joined << "\n" << stream;
  EXPECT_EQ(dataset.report.kept, 200u);
}

TEST(Dataset, DoesNotDependOnTheNumberOfThreads) {
  const ByteModel bytes;
  Rng rng(testing::test_seed());
  std::string content;
  for (int i = 0; i < 5000; ++i) {
    const bool bad = rng.below(50) == 0;
    content += fmt::format("{{\"instruction\": \"{}\", \"output\": {}}}\n", std::string(1 + rng.below(80), 'q'),
                           bad ? "3" : "\"" + std::string(1 + rng.below(80), 'a') + "\"");
  }
  const int before = team_size();
  std::vector<Dataset> made;
  for (const int threads : {1, 3, 4}) {
    set_team_size(threads);
    made.push_back(load(bytes, "f.jsonl", content, {}, {.sequence_len = 120, .skip_bad = true}));
  }
  set_team_size(before);
  for (const Dataset& dataset : made) {
    EXPECT_EQ(dataset.fingerprint, made[0].fingerprint);
    EXPECT_EQ(dataset.tokens, made[0].tokens);
    EXPECT_EQ(dataset.report.bad, made[0].report.bad);
    EXPECT_GT(dataset.report.bad, 0u);
    EXPECT_GT(dataset.report.dropped, 0u);
    EXPECT_EQ(dataset.report.rows, 5000u);
    EXPECT_EQ(dataset.report.kept + dataset.report.bad + dataset.report.dropped, 5000u);
  }
}

TEST(Dataset, HasAFingerprintOfWhatTrains) {
  const ByteModel bytes, other("{% for m in messages %}{{ m.role }}:{{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}");
  const std::string row = R"({"instruction": "q", "output": "a"})";
  const std::string base = load(bytes, "f.jsonl", row).fingerprint;
  EXPECT_EQ(base.size(), 64u);
  EXPECT_EQ(load(bytes, "g.json", "[ " + row + " ]").fingerprint, base);
  EXPECT_NE(load(bytes, "f.jsonl", R"({"instruction": "q", "output": "b"})").fingerprint, base);
  EXPECT_NE(load(other, "f.jsonl", row).fingerprint, base);
  EXPECT_NE(load(bytes, "f.jsonl", row, {.mask = {.train_on_eos = TrainOnEos::none}}).fingerprint, base);
  EXPECT_NE(load(bytes, "f.jsonl", row, {.mask = {.train_on_inputs = true}}).fingerprint, base);
  EXPECT_NE(load(bytes, "f.jsonl", row, {}, {.sequence_len = 21, .over_length = OverLength::truncate}).fingerprint, base);
}

TEST(Dataset, JoinsSourcesAndGivesSubsets) {
  const ByteModel bytes;
  const testing::TemporaryFolder folder;
  const std::string one = folder.write("one.jsonl", R"({"text": "a"})"), two = folder.write("two.txt", "b"),
                    three = folder.write("three.jsonl", R"({"instruction": "q", "output": "a"})");
  const Dataset dataset = load_dataset({{one}, {two}, {three}}, {}, bytes.model());
  ASSERT_EQ(dataset.size(), 3u);
  const std::vector<uint64_t> ids = {2, 0};
  const Dataset some = dataset.subset(ids);
  ASSERT_EQ(some.size(), 2u);
  EXPECT_EQ(bytes.shown(some.example(0)), kAnswered);
  EXPECT_EQ(bytes.shown(some.example(1)), "a[[</s>]]");
  EXPECT_NE(some.fingerprint, dataset.fingerprint);
  const std::string pair = folder.write("pair.jsonl", R"({"prompt": "q", "chosen": "a", "rejected": "bad"})");
  EXPECT_THROW(load_dataset({{one}, {pair}}, {}, bytes.model()), Error);
  const Dataset pairs = load_dataset({{pair}, {pair}}, {}, bytes.model());
  const std::vector<uint64_t> second = {1};
  EXPECT_EQ(bytes.shown(pairs.subset(second).example(1)), kQuestion + "[[bad<|im_end|>]]\n");
}

}  // namespace
}  // namespace frugal::data
