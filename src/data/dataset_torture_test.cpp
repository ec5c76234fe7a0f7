// The list H of robustness.md by number: files and rows that are broken, hostile or move while they are read.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "base/clock.h"
#include "base/file.h"
#include "base/progress.h"
#include "base/rng.h"
#include "data/dataset.h"
#include "data/row_reader.h"
#include "data/test_support.h"

namespace frugal::data {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

const std::string kRow = R"({"instruction": "q", "output": "a"})";
const ByteModel& bytes() {
  static const ByteModel model;
  return model;
}

size_t size_of(const std::string& content, const LoadOptions& options = {}) { return load(bytes(), "f.jsonl", content, {}, options).size(); }
std::string error_of(const std::string& content, const Source& source = {}, const LoadOptions& options = {}) {
  return load_error(bytes(), "f.jsonl", content, source, options);
}

// The row stands in line 2, after a good one: it stops the load with its line, or is counted.
void expect_bad(const std::string& row, const std::string& rule, const std::string& good = kRow) {
  const std::string content = good + "\n" + row + "\n" + good + "\n";
  const std::string error = error_of(content);
  EXPECT_THAT(error, StartsWith("invalid input: f.jsonl:2")) << row.substr(0, 200);
  EXPECT_THAT(error, HasSubstr(rule));
  EXPECT_LT(error.size(), 1000u);
  const Dataset kept = load(bytes(), "f.jsonl", content, {}, {.skip_bad = true});
  EXPECT_EQ(kept.report.kept, 2u) << row.substr(0, 200);
  EXPECT_EQ(kept.report.bad, 1u);
  EXPECT_THAT(kept.report.problems.at(0), HasSubstr("f.jsonl:2"));
}

TEST(DatasetTorture, H1FilesWithoutRowsAndOddEndsOfLines) {
  for (const char* name : {"f.jsonl", "f.json"}) {
    for (const char* empty : {"", "\n", "\n\n\r\n  \n", "\xEF\xBB\xBF"})
      EXPECT_EQ(load_error(bytes(), name, empty), fmt::format("invalid input: {}: has no rows", name));
  }
  EXPECT_EQ(load_error(bytes(), "f.json", "[]"), "invalid input: f.json: has no rows");
  EXPECT_THAT(load_error(bytes(), "f.txt", ""), HasSubstr("f.txt: has no text"));
  EXPECT_EQ(size_of(kRow), 1u);
  EXPECT_EQ(size_of(kRow + "\r\n" + kRow + "\r\n"), 2u);
  EXPECT_EQ(size_of("\xEF\xBB\xBF" + kRow + "\n\n \n" + kRow), 2u);
  expect_bad("\xEF\xBB\xBF" + kRow, "byte order mark");  // in the middle: two files that were joined
}

long resident_mib() {
  std::ifstream status("/proc/self/statm");
  long pages = 0, resident = 0;
  status >> pages >> resident;
  return resident * ::sysconf(_SC_PAGESIZE) >> 20;
}

TEST(DatasetTorture, H2ALineOfAGibibyteCostsNoMemory) {
  const testing::TemporaryFolder folder;
  const std::string path = folder.write("f.jsonl", kRow + "\n");
  std::filesystem::resize_file(path, size_t{1} << 30);  // sparse: zeros
  std::ofstream(path, std::ios::app) << "\n" << kRow << "\n";
  long peak = 0;
  const long before = resident_mib();
  set_progress_sink([&](const ProgressState&, bool) { peak = std::max(peak, resident_mib()); });
  const auto load_it = [&](bool skip) { return load_dataset({{path}}, {.skip_bad = skip}, bytes().model()); };
  try {
    load_it(false);
    ADD_FAILURE() << "taken";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::invalid_input);
    EXPECT_THAT(error.what(), HasSubstr("f.jsonl:2: a line of"));
  }
  const Dataset dataset = load_it(true);
  set_progress_sink({});
  EXPECT_EQ(dataset.size(), 2u);
  EXPECT_EQ(dataset.report.bad, 1u);
  EXPECT_LT(peak - before, 64);
  // A line at the cap is taken, one above it is not.
  const auto row = [](size_t size) { return "{\"text\": \"" + std::string(size - 12, 'a') + "\"}"; };
  EXPECT_EQ(load(bytes(), "f.jsonl", row(kLongestRow), {}, {.over_length = OverLength::truncate}).report.cut, 1u);
  EXPECT_THAT(error_of(row(kLongestRow + 1)), HasSubstr("f.jsonl:1: a line of 16777217 bytes, 16777216 are allowed"));
}

TEST(DatasetTorture, H3FilesThatAreCut) {
  for (size_t length = 1; length < kRow.size(); ++length) {
    EXPECT_THAT(error_of(kRow + "\n" + kRow.substr(0, length)), StartsWith("invalid input: f.jsonl:2:")) << length;
    EXPECT_THAT(load_error(bytes(), "f.json", "[\n" + kRow + ",\n" + kRow.substr(0, length)), StartsWith("invalid input: f.json:3:")) << length;
  }
  EXPECT_THAT(load_error(bytes(), "f.json", "[" + kRow), HasSubstr("f.json:1: the list of rows has no end"));
  EXPECT_THAT(load_error(bytes(), "f.json", "[" + kRow + kRow + "]"), HasSubstr("must be separated"));
  EXPECT_THAT(load_error(bytes(), "f.json", "[" + kRow + "]\n" + kRow), HasSubstr("f.json:2: something follows"));
  EXPECT_THAT(load_error(bytes(), "f.json", "[" + kRow + ",]"), StartsWith("invalid input: f.json:1:"));
  EXPECT_THAT(load_error(bytes(), "f.json", "[,]"), StartsWith("invalid input: f.json:1:"));
}

TEST(DatasetTorture, H4BytesThatAreNoText) {
  expect_bad("{\"instruction\": \"\xFF\", \"output\": \"a\"}", "not valid JSON");
  expect_bad("{\"instruction\": \"\xED\xA0\x80\", \"output\": \"a\"}", "not valid JSON");
  expect_bad("{\"instruction\": \"" + std::string(1, '\0') + "\", \"output\": \"a\"}", "NUL");
  expect_bad(R"({"instruction": "\ud800", "output": "a"})", "surrogate");
  expect_bad(R"({"instruction": "\udc00\ud800", "output": "a"})", "surrogate");
  EXPECT_THAT(load_error(bytes(), "f.txt", "a\xFFz"), HasSubstr("f.txt: is not UTF-8"));
  EXPECT_THAT(load_error(bytes(), "f.txt", std::string("a\0z", 3)), HasSubstr("f.txt: offset 1: a NUL byte"));
}

TEST(DatasetTorture, H5RowsThatAreNoRows) {
  for (const char* row : {"[]", "3", "null", "\"text\"", "true",
                          "["
                          R"({"instruction": "q", "output": "a"})"
                          "]"})
    expect_bad(row, "a row must be an object");
  for (const char* junk : {"{", "}", "{'a': 1}", "{\"instruction\": NaN}", "# comment", "{} {}", "{\"instruction\": \"a\",}"}) expect_bad(junk, "f.jsonl:2");
  expect_bad("{}", "instruction must be a string, is missing");
  expect_bad(R"({"instruction": "q"})", "output must be a string, is missing");
  expect_bad(R"({"instruction": 3, "output": "a"})", "instruction must be a string, is 3");
  expect_bad(R"({"instruction": "q", "output": null})", "output must be a string, is missing");
  expect_bad(R"({"instruction": "q", "output": ["a"]})", "output must be a string");
  expect_bad(R"({"instruction": "q", "output": ""})", "output must not be empty");
  expect_bad(R"({"instruction": "", "output": "a"})", "instruction must not be empty");
  expect_bad(R"({"instruction": "q", "output": "a", "history": [["x"]]})", "history must be a list of [question, answer]");
  expect_bad(R"({"text": "of another kind"})", "instruction must be a string, is missing");
  const std::string text = R"({"text": "t"})";
  expect_bad(R"({"text": ""})", "text must not be empty", text);
  expect_bad(R"({"text": 7})", "text must be a string, is 7", text);
  EXPECT_THAT(error_of("{}\n"), HasSubstr("f.jsonl:1: not a row of a known kind"));
  EXPECT_THAT(error_of("[1, 2]\n"), HasSubstr("f.jsonl:1: a row must be an object, is [1,2]"));
}

TEST(DatasetTorture, H5MessagesThatAreNoMessages) {
  const std::string good = R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]})";
  const auto messages = [&](const std::string& list, const std::string& rule) { expect_bad("{\"messages\": " + list + "}", rule, good); };
  messages("3", "messages must be a list of messages, is 3");
  messages("[]", "messages must not be empty");
  messages("[3]", "messages[0] must be an object");
  messages(R"([{"content": "x"}])", "messages[0].role must be one of system, developer, user");
  messages(R"([{"role": "alien", "content": "x"}])", "is \"alien\"");
  messages(R"([{"role": ["user"], "content": "x"}])", "messages[0].role must be one of");
  messages(R"([{"role": "user"}])", "messages[0].content must be a string or a list of text parts, is missing");
  messages(R"([{"role": "user", "content": 3}])", "messages[0].content must be a string");
  messages(R"([{"role": "user", "content": [{"type": "image_url"}]}])", "messages[0].content[0] must be a part of type text");
  messages(R"([{"role": "user", "content": "x", "tool_calls": [{"function": {"name": "f"}}]}])", "tool_calls are of an assistant");
  messages(R"([{"role": "assistant", "tool_calls": 3}])", "messages[0].tool_calls must be a list");
  messages(R"([{"role": "assistant", "tool_calls": [{"function": {"name": 3}}]}])", "tool_calls[0].name must be a string");
  messages(R"([{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}])", "arguments");
  messages(R"([{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[1]"}}]}])", "arguments must be a JSON object");
  expect_bad(R"({"messages": [{"role": "user", "content": "q"}], "tools": {"a": 1}})", "tools must be a list", good);
  expect_bad(R"({"messages": [{"role": "user", "content": "q"}], "tools": [{"function": {}}]})", "tools[0].function.name must be a string", good);
  std::string many;
  for (int i = 0; i < 10'001; ++i) many += std::string(i ? "," : "") + R"({"role":"user","content":"q"})";
  messages("[" + many + "]", "messages has 10001 entries, 10000 are allowed");
  const std::string pair = R"({"prompt": "q", "chosen": "a", "rejected": "b"})";
  expect_bad(R"({"prompt": "q", "chosen": "a"})", "rejected must be a string or a list of messages, is missing", pair);
  expect_bad(R"({"prompt": "q", "chosen": "a", "rejected": ""})", "rejected must not be empty", pair);
  expect_bad(R"({"chosen": "a", "rejected": "b"})", "prompt is needed", pair);
  expect_bad(R"({"chosen": [{"role": "user", "content": "q"}], "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]})",
             "chosen says no more than the prompt", pair);
}

TEST(DatasetTorture, H6KeysDepthsAndNumbers) {
  expect_bad(R"({"instruction": "q", "output": "a", "output": "b"})", "duplicate key \"output\"");
  for (const char c : {'[', '{'}) {
    std::string deep = "{\"instruction\": \"q\", \"output\": ";
    for (int i = 0; i < 100'000; ++i) deep += c == '[' ? "[" : "{\"a\":";
    expect_bad(deep, "nested deeper than 64 levels");
    EXPECT_THAT(load_error(bytes(), "f.json", "[" + deep), HasSubstr("nested deeper than 64 levels"));
  }
  expect_bad(R"({"instruction": "q", "output": "a", "n": 1e400})", "number overflow");
  EXPECT_EQ(size_of(R"({"instruction": "q", "output": "a", "n": 123456789012345678901234567890})"), 1u);
}

TEST(DatasetTorture, H7RowsWithoutATokenToLearn) {
  const std::string unanswered = R"({"messages": [{"role": "user", "content": "q"}]})";
  const std::string answered = R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]})";
  const Dataset dataset = load(bytes(), "f.jsonl", unanswered + "\n" + answered + "\n" + unanswered);
  EXPECT_EQ(dataset.size(), 1u);
  EXPECT_EQ(dataset.report.without_labels, 2u);
  EXPECT_EQ(dataset.report.trained_tokens, 2u);
  EXPECT_THAT(to_string(dataset.report), HasSubstr("3 rows, 1 kept, "));
  EXPECT_THAT(to_string(dataset.report), HasSubstr("2 without a token to learn"));
  EXPECT_THAT(error_of(unanswered), StartsWith("invalid input: nothing is left to learn: 1 rows, 0 kept"));
  EXPECT_THAT(error_of(kRow, {.mask = {.roles_to_train = {}}}), HasSubstr("nothing is left to learn"));
}

TEST(DatasetTorture, H8RowsLongerThanTheContext) {
  const std::string longer = R"({"instruction": "q", "output": ")" + std::string(100, 'a') + R"("})", content = kRow + "\n" + longer + "\n";
  const size_t tokens = load(bytes(), "f.jsonl", kRow).tokens.size();
  const Dataset dropped = load(bytes(), "f.jsonl", content, {}, {.sequence_len = tokens});
  EXPECT_EQ(dropped.report.dropped, 1u);
  EXPECT_EQ(dropped.size(), 1u);
  const Dataset cut = load(bytes(), "f.jsonl", content, {}, {.sequence_len = tokens, .over_length = OverLength::truncate});
  EXPECT_EQ(cut.report.cut, 1u);
  EXPECT_EQ(cut.report.dropped, 0u);
  EXPECT_EQ(cut.example(1).tokens.size(), tokens);
  const Dataset whole = load(bytes(), "f.jsonl", content);
  for (size_t i = 0; i < tokens; ++i) {
    EXPECT_EQ(cut.example(1).tokens[i], whole.example(1).tokens[i]);
    EXPECT_EQ(cut.example(1).trained[i], whole.example(1).trained[i]);
  }
  // Cut before the answer: nothing is learned of it.
  const Dataset headless = load(bytes(), "f.jsonl",
                                R"({"instruction": ")" + std::string(100, 'q') +
                                    R"(", "output": "a"})"
                                    "\n" +
                                    kRow,
                                {}, {.sequence_len = tokens, .over_length = OverLength::truncate});
  EXPECT_EQ(headless.report.without_labels, 1u);
  EXPECT_THAT(error_of(longer, {}, {.sequence_len = 50}), HasSubstr("1 too long and dropped"));
  EXPECT_EQ(over_length("drop"), OverLength::drop);
  EXPECT_THROW(over_length("cut"), Error);
  EXPECT_THAT(error_of(kRow, {}, {.sequence_len = 1}), HasSubstr("sequence_len must be at least 2"));
  // One answer of a preference: the pair goes.
  const Dataset pairs = load(bytes(), "f.jsonl",
                             R"({"prompt": "q", "chosen": "a", "rejected": ")" + std::string(100, 'a') +
                                 "\"}\n"
                                 R"({"prompt": "q", "chosen": "a", "rejected": "b"})",
                             {}, {.sequence_len = 60});
  EXPECT_EQ(pairs.size(), 2u);
  EXPECT_EQ(pairs.report.dropped, 1u);
}

TEST(DatasetTorture, H8AConversationOfTenThousandMessagesIsCutInSeconds) {
  std::string messages;
  for (int i = 0; i < 10'000; ++i) messages += fmt::format(R"({}{{"role":"{}","content":"x"}})", i ? "," : "", i % 2 ? "assistant" : "user");
  const std::string row = "{\"messages\": [" + messages + "]}";
  const Stopwatch watch;
  const Dataset cut = load(bytes(), "f.jsonl", row, {}, {.over_length = OverLength::truncate});
  EXPECT_EQ(cut.tokens.size(), 2048u);
  EXPECT_LT(watch.seconds(), 60);
  EXPECT_THAT(error_of(row), HasSubstr("1 too long and dropped"));
}

TEST(DatasetTorture, H9CompressedFilesUnderAnotherName) {
  for (const auto& [magic, name] :
       {std::pair{"\x1F\x8B\x08", "gzip"}, {"\x28\xB5\x2F\xFD", "zstd"}, {"BZh9", "bzip2"}, {"\xFD\x37zXZ", "xz"}, {"PK\x03\x04", "zip"}})
    EXPECT_THAT(error_of(magic), StartsWith(fmt::format("unsupported: f.jsonl: is compressed ({}); unpack it first", name)));
}

TEST(DatasetTorture, H10FilesThatChange) {
  install_mapping_guard();
  const testing::TemporaryFolder folder;
  std::string content;
  for (int i = 0; i < 20'000; ++i) content += kRow + "\n";
  const std::string path = folder.write("f.jsonl", content);
  const Dataset dataset = load_dataset({{path}}, {}, bytes().model());
  const std::vector<int32_t> tokens = dataset.tokens;
  std::filesystem::resize_file(path, 10);  // afterwards: nothing
  EXPECT_EQ(dataset.tokens, tokens);
  const std::function<void()> changes[] = {[&] { std::filesystem::resize_file(path, 5000); }, [&] { std::ofstream(path, std::ios::app) << kRow << "\n"; },
                                           [&] { std::filesystem::resize_file(path, 0); }, [&] { std::filesystem::rename(folder.write("other", kRow), path); }};
  for (const auto& change : changes) {
    folder.write("f.jsonl", content);
    bool done = false;
    set_progress_sink([&](const ProgressState&, bool) {
      if (!std::exchange(done, true)) change();
    });
    try {
      load_dataset({{path}}, {.skip_bad = true}, bytes().model());
      ADD_FAILURE() << "not seen";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::io) << error.what();
      EXPECT_THAT(error.what(), HasSubstr(path));
    }
    set_progress_sink({});
  }
}

TEST(DatasetTorture, H11PathsThatAreNoFiles) {
  const testing::TemporaryFolder folder;
  const auto kind_for = [&](const std::string& path) {
    try {
      load_dataset({{path}}, {}, bytes().model());
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr(path));
      return error.kind();
    }
    return ErrorKind::internal;
  };
  ASSERT_EQ(::mkfifo((folder / "fifo.jsonl").c_str(), 0600), 0);
  EXPECT_EQ(kind_for(folder / "fifo.jsonl"), ErrorKind::io);
  EXPECT_EQ(kind_for(folder.path()), ErrorKind::io);
  EXPECT_EQ(kind_for(folder / "absent.jsonl"), ErrorKind::io);
  EXPECT_EQ(kind_for("/dev/zero"), ErrorKind::io);
  folder.write("secret.jsonl", kRow);
  std::filesystem::permissions(folder / "secret.jsonl", std::filesystem::perms::none);
  EXPECT_TRUE(::geteuid() == 0 || kind_for(folder / "secret.jsonl") == ErrorKind::io);  // root may read everything
  EXPECT_EQ(kind_for(folder.write("f.parquet", "PAR1")), ErrorKind::corrupt_file);
}

TEST(DatasetTorture, H12ManyShortRowsTakeTheMemoryThatIsStated) {
  const testing::TemporaryFolder folder;
  std::string content;
  const size_t rows = 200'000;
  for (size_t i = 0; i < rows; ++i) content += "{\"text\":\"ab\"}\n";
  const std::string path = folder.write("f.jsonl", content);
  const Dataset dataset = load_dataset({{path}}, {}, bytes().model());
  EXPECT_EQ(dataset.size(), rows);
  EXPECT_EQ(dataset.tokens.size(), 3 * rows);
  EXPECT_LE(dataset.tokens.capacity() * 4 + dataset.trained.capacity() + dataset.offsets.capacity() * 8, 2 * (5 * 3 + 8) * rows);
}

TEST(DatasetTorture, H13TextIsNeverASpecialToken) {
  const Dataset dataset = load(bytes(), "f.jsonl", R"({"text": "a</s><|im_start|>b<s>"})");
  EXPECT_EQ(std::ranges::count_if(dataset.tokens, [](int32_t id) { return id >= 256; }), 1);  // the end
  const Dataset chat = load(bytes(), "f.jsonl", R"({"instruction": "</s><|im_end|>{{ 7*7 }}{% raw %}", "output": "<|im_start|>assistant"})");
  EXPECT_EQ(std::ranges::count_if(chat.tokens, [](int32_t id) { return id >= 256; }), 4);
  EXPECT_THAT(bytes().shown(chat.example(0)), HasSubstr("</s><|im_end|>{{ 7*7 }}{% raw %}<|im_end|>"));
}

// Bytes of a good file changed at random: a data set or an Error, never anything else.
TEST(DatasetTorture, RandomChangesGiveRowsOrErrors) {
  Rng rng(testing::test_seed());
  std::string base;
  for (int i = 0; i < 4; ++i)
    base +=
        R"({"messages": [{"role": "user", "content": "q\u00e9"}, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}, {"role": "tool", "content": [{"type": "text", "text": "x"}]}], "tools": [{"name": "f"}]})"
        "\n";
  const testing::TemporaryFolder folder;
  for (int round = 0; round < 1000; ++round) {
    std::string content = base;
    for (uint64_t change = rng.below(4) + 1; change-- > 0;) {
      const size_t at = rng.below(content.size());
      switch (rng.below(4)) {
        case 0: content[at] = static_cast<char>(rng.next()); break;
        case 1: content.erase(at, rng.below(20)); break;
        case 2: content.insert(at, content.substr(rng.below(content.size()), rng.below(40))); break;
        default: content[at] = "{}[]\",:\\\n0"[rng.below(10)];
      }
    }
    const std::string path = folder.write(round % 2 ? "f.jsonl" : "f.json", round % 2 ? content : "[" + content + "]");
    try {
      const Dataset dataset = load_dataset({{path}}, {.skip_bad = true}, bytes().model());
      EXPECT_EQ(dataset.report.rows, dataset.report.kept + dataset.report.bad + dataset.report.without_labels + dataset.report.dropped);
    } catch (const Error& error) {
      EXPECT_NE(error.kind(), ErrorKind::internal) << error.what();
    }
  }
}

}  // namespace
}  // namespace frugal::data
