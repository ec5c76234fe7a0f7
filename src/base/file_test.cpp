#include "base/file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "base/error.h"
#include "oracle.h"

namespace frugal {
namespace {
namespace fs = std::filesystem;

class FileTest : public ::testing::Test {
 protected:
  std::string path(const std::string& name) const { return folder_ / name; }
  size_t entries() const { return static_cast<size_t>(std::distance(fs::directory_iterator(folder_.path()), fs::directory_iterator())); }
  testing::TemporaryFolder folder_;
};

TEST_F(FileTest, AnAtomicFileAppearsOnlyOnCommit) {
  {
    AtomicFile file(path("a"));
    file.write("half");
  }
  EXPECT_EQ(entries(), 0u);
  AtomicFile file(path("a"));
  file.write("head");
  file.write("whole");
  EXPECT_FALSE(fs::exists(path("a")));
  file.commit();
  EXPECT_EQ(read_text_file(path("a"), 100), "headwhole");
  EXPECT_EQ(entries(), 1u);
}

TEST_F(FileTest, AnAtomicDirectoryReplacesTheOldOneInOneStep) {
  for (const char* content : {"old", "new"}) {
    AtomicDirectory directory(path("d/"), /*replace=*/true);
    AtomicFile file(directory.staging() + "/x");
    file.write(content);
    file.commit();
    directory.commit();
  }
  EXPECT_EQ(read_text_file(path("d/x"), 100), "new");
  EXPECT_EQ(entries(), 1u);
  EXPECT_THROW(AtomicDirectory(path("d"), /*replace=*/false), Error);
  { AtomicDirectory left(path("e"), false); }
  EXPECT_EQ(entries(), 1u);
}

TEST_F(FileTest, AMappedFileThatIsCutReadsAsZerosAndIsNamed) {
  install_mapping_guard();
  std::ofstream(path("cut")) << std::string(20000, 'x');
  {
    const auto file = MappedFile::open(path("cut"));
    fs::resize_file(path("cut"), 100);
    EXPECT_EQ(file->bytes()[50], std::byte{'x'});
    EXPECT_NO_THROW(require_whole_mappings());
    EXPECT_EQ(file->bytes()[19000], std::byte{0});
    EXPECT_THROW(
        try { require_whole_mappings(); } catch (const Error& error) {
          EXPECT_EQ(error.kind(), ErrorKind::io);
          EXPECT_NE(std::string(error.what()).find("/cut: was cut"), std::string::npos) << error.what();
          throw;
        },
        Error);
    AtomicFile output(path("o"));
    EXPECT_THROW(output.commit(), Error);
    EXPECT_FALSE(fs::exists(path("o")));
  }
  EXPECT_NO_THROW(require_whole_mappings());
}

TEST_F(FileTest, WhatAKilledRunLeftIsRemovedByTheNextOneAndWhatALiveOneHoldsIsNot) {
  const pid_t dead = ::fork();
  if (dead == 0) ::_exit(0);
  ::waitpid(dead, nullptr, 0);
  const std::string left = path(fmt::format("d.tmp.{}", dead)), other = path(fmt::format("dd.tmp.{}", dead)), live = path("d.tmp.1");
  for (const std::string& folder : {left, other, live}) fs::create_directories(folder + "/x");
  { AtomicDirectory directory(path("d"), /*replace=*/false); }
  EXPECT_FALSE(fs::exists(left));
  EXPECT_TRUE(fs::exists(other) && fs::exists(live));
  fs::create_directories(left);
  const int lock = ::open(left.c_str(), O_RDONLY);  // a process of another container
  ASSERT_EQ(::flock(lock, LOCK_EX), 0);
  { AtomicFile file(path("d")); }
  EXPECT_TRUE(fs::exists(left));
  ::close(lock);
  { AtomicFile file(path("d")); }
  EXPECT_FALSE(fs::exists(left));
}

TEST_F(FileTest, WritesToAMappedFileStayPrivate) {
  std::ofstream(path("m")) << "abc";
  {
    const auto file = MappedFile::open(path("m"));
    ASSERT_EQ(file->bytes().size(), 3u);
    file->mutable_data()[0] = std::byte{'z'};
  }
  EXPECT_EQ(read_text_file(path("m"), 3), "abc");
  EXPECT_THROW(read_text_file(path("m"), 2), Error);
  std::ofstream(path("empty"));
  EXPECT_EQ(MappedFile::open(path("empty"))->bytes().size(), 0u);
}

size_t resident_pages() {
  size_t total = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> total >> resident;
  return resident;
}

TEST_F(FileTest, ReleasedPagesOfAMappingAreReadAgainAndOtherMemoryStays) {
  const std::string text(size_t{16} << 20, 'x');
  std::ofstream(path("m")) << text;
  const auto file = MappedFile::open(path("m"));
  const auto sum = [](std::span<const std::byte> bytes) {
    size_t total = 0;
    for (const std::byte value : bytes) total += static_cast<size_t>(value);
    return total;
  };
  const size_t want = sum(file->bytes()), before = resident_pages();
  release_mapped(file->bytes().subspan(1, text.size() - 2));
  EXPECT_LT(resident_pages() + 3000, before);  // of 4,096
  EXPECT_EQ(sum(file->bytes()), want);
  std::vector<std::byte> own(size_t{1} << 20, std::byte{7});
  release_mapped(own);
  EXPECT_EQ(sum(own), own.size() * 7);
}

TEST_F(FileTest, OnlyRegularFilesAreRead) {
  ::mkfifo(path("fifo").c_str(), 0600);
  ::symlink(path("loop").c_str(), path("loop").c_str());
  for (const std::string& bad : {path("fifo"), path("loop"), path("absent"), folder_.path(), std::string("/dev/zero")}) {
    EXPECT_THROW(MappedFile::open(bad), Error) << bad;
    EXPECT_THROW(read_text_file(bad, 10), Error) << bad;
  }
  EXPECT_THROW(require_readable(path("fifo")), Error);
  EXPECT_THROW(require_appendable(path("fifo")), Error);
  EXPECT_THROW(append_line(path("fifo"), "{}", "{"), Error);
}

TEST_F(FileTest, ALineAppendedAfterACutOneReplacesTheCutOne) {
  append_line(path("l"), R"({"a":1})", "{");
  for (const char* cut : {R"({"a":2)", R"({"a)", "{"}) {  // also within the bytes that every line begins with
    std::filesystem::resize_file(path("l"), 8);
    std::ofstream(path("l"), std::ios::app) << cut;
    append_line(path("l"), R"({"a":2})", R"({"a")");
    EXPECT_EQ(read_text_file(path("l"), 100), "{\"a\":1}\n{\"a\":2}\n") << cut;
  }
}

TEST_F(FileTest, ALineThatLacksOnlyItsNewlineIsKeptAndAnotherKindOfFileIsRefused) {
  std::ofstream(path("l")) << R"({"a":1})";
  append_line(path("l"), R"({"a":2})", "{");
  EXPECT_EQ(read_text_file(path("l"), 100), "{\"a\":1}\n{\"a\":2}\n");
  std::ofstream(path("notes")) << "one\nmy only copy";
  EXPECT_THROW(append_line(path("notes"), R"({"a":2})", "{"), Error);
  EXPECT_EQ(read_text_file(path("notes"), 100), "one\nmy only copy");
}

TEST_F(FileTest, OnlyADirectoryWithItsMarkIsReplaced) {
  std::filesystem::create_directory(path("thesis"));
  std::ofstream(path("thesis/text")) << "x";
  EXPECT_THROW(require_free_output(path("thesis"), true, "config.json"), Error);
  std::ofstream(path("thesis/config.json")) << "{}";
  require_free_output(path("thesis"), true, "config.json");
  EXPECT_THROW(require_free_output(path("thesis"), false, "config.json"), Error);
  EXPECT_THROW(require_free_output(path("absent/out"), true, "config.json"), Error);
}

TEST_F(FileTest, AFullDeviceIsAnErrorNotALoss) { EXPECT_THROW(append_line("/dev/full", "{}", "{"), Error); }

}  // namespace
}  // namespace frugal
