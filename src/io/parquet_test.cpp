// Rows against pyarrow, which wrote the files (tests/oracle/make_parquet.py); then those files cut and changed.
#include "io/parquet.h"

#include <gmock/gmock.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "base/file.h"
#include "base/rng.h"
#include "oracle.h"

namespace frugal::io {
namespace {

using ::testing::HasSubstr;

const std::vector<std::string> kFields = {"text", "id", "small", "good", "score", "half", "messages", "history", "meta", "choice", "all"};
constexpr int kFiles = 16;

class Parquet : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = std::make_unique<testing::TemporaryFolder>();
    testing::run_oracle("make_parquet.py", fmt::format("{} {}", folder_->path(), testing::test_seed()));
  }
  static void TearDownTestSuite() { folder_.reset(); }
  static std::string bytes_of(const std::string& name) { return read_text_file(*folder_ / name, size_t{64} << 20); }
  static std::string file(int number) { return bytes_of(fmt::format("{}.parquet", number)); }

  static std::vector<Json> rows_of(const std::string& bytes, const std::vector<std::string>& wanted = kFields) {
    ParquetReader reader(std::as_bytes(std::span(bytes)), "f.parquet", wanted);
    std::vector<Json> rows;
    for (Json row; reader.next(row);) rows.push_back(row);
    EXPECT_EQ(rows.size(), reader.rows());
    return rows;
  }

  static std::string error_of(const std::string& bytes, const std::vector<std::string>& wanted = kFields) {
    try {
      rows_of(bytes, wanted);
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("f.parquet"));
      EXPECT_NE(error.kind(), ErrorKind::internal) << error.what();
      return fmt::format("{}: {}", to_string(error.kind()), error.what());
    }
    return "";
  }

  static std::unique_ptr<testing::TemporaryFolder> folder_;
};
std::unique_ptr<testing::TemporaryFolder> Parquet::folder_;

TEST_F(Parquet, HasTheRowsThatPyarrowWrote) {
  for (int i = 0; i < kFiles; ++i) {
    const std::vector<Json> rows = rows_of(file(i));
    std::ifstream lines(*folder_ / fmt::format("{}.jsonl", i));
    size_t count = 0;
    for (std::string line; std::getline(lines, line); ++count) {
      ASSERT_LT(count, rows.size());
      ASSERT_EQ(rows[count], parse_json(line, "line")) << i << " row " << count;
    }
    EXPECT_EQ(count, rows.size()) << i;
  }
}

TEST_F(Parquet, ReadsOnlyTheFieldsThatAreWanted) {
  for (const Json& row : rows_of(file(1), {"id", "absent"})) EXPECT_EQ(row.size(), 1u);
  EXPECT_THAT(error_of(file(1), {"when", "absent", "vector"}), "");  // a list of floats and a number are read
  EXPECT_THAT(error_of(file(1), {"absent"}), HasSubstr("invalid input: f.parquet: has none of the fields that are looked for; it has text, id"));
}

TEST_F(Parquet, NamesWhatItDoesNotRead) {
  for (const auto& [name, reason] : {std::pair{"map", "a map"},
                                     {"decimal", "neither a text"},
                                     {"fixed", "neither a text"},
                                     {"brotli", "its compression (4)"},
                                     {"delta", "the encoding 5"}}) {
    const std::string bytes = bytes_of(fmt::format("odd_{}.parquet", name));
    EXPECT_THAT(error_of(bytes, {"text", "fine"}), ::testing::StartsWith("unsupported: ")) << name;
    EXPECT_THAT(error_of(bytes, {"text", "fine"}), HasSubstr(reason)) << name;
    if (std::string_view(name) != "brotli") {
      EXPECT_EQ(rows_of(bytes, {"fine"}).at(0)["fine"], "x") << name;
    }
  }
}

TEST_F(Parquet, RefusesFilesThatAreCut) {
  EXPECT_THAT(error_of(""), HasSubstr("does not begin and end as a Parquet file"));
  for (int i = 0; i < kFiles; ++i) {
    const std::string bytes = file(i);
    for (size_t size = 0; size < bytes.size(); size += 4096) EXPECT_THAT(error_of(bytes.substr(0, size)), ::testing::StartsWith("corrupt file: "));
    // The middle is gone, the footer is there.
    if (bytes.size() > 9000) {
      EXPECT_NE(error_of(bytes.substr(0, 4096) + bytes.substr(8192)), "") << i;
    }
  }
}

TEST_F(Parquet, GivesRowsOrErrorsWhateverBitsAreFlipped) {
  Rng rng(testing::test_seed());
  std::vector<std::string> files;
  for (int i = 0; i < kFiles; ++i) files.push_back(file(i));
  const int rounds = std::stoi(testing::environment_or("FRUGAL_PARQUET_ROUNDS", "600"));
  for (int round = 0; round < rounds; ++round) {
    std::string bytes = files[rng.below(files.size())];
    uint32_t footer = 0;
    std::memcpy(&footer, bytes.data() + bytes.size() - 8, 4);
    for (uint64_t flips = 1 + rng.below(3); flips-- > 0;) {
      // Half of them in the footer.
      const size_t at = rng.below(2) ? bytes.size() - 8 - footer + rng.below(footer) : rng.below(bytes.size());
      bytes[at] = rng.below(2) ? static_cast<char>(bytes[at] ^ (1 << rng.below(8))) : static_cast<char>(rng.next());
    }
    error_of(bytes);
  }
}

}  // namespace
}  // namespace frugal::io
