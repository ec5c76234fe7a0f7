// Files: mapped whole for reading, and written so that a target appears complete or not at all.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace frugal {

// A regular file mapped copy-on-write (PROT_READ|PROT_WRITE, MAP_PRIVATE): a write by a tensor operation changes private
// pages, never the file. Shared by everything that points into it. Thread-safe after construction.
class MappedFile {
 public:
  // Throws Error{io} when it cannot be opened or is not a regular file (a FIFO, device or directory is refused).
  static std::shared_ptr<MappedFile> open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  std::byte* mutable_data() { return data_; }
  const std::string& path() const { return path_; }

 private:
  MappedFile(std::string path, std::byte* data, size_t size);
  std::string path_;
  std::byte* data_;
  size_t size_;
};

// A file that another program cuts while it is mapped raises SIGBUS at the next touch of a lost page. With the guard, which
// cli/ installs, such a page reads as zeros instead and require_whole_mappings() throws Error{io} that names the file, as long
// as the mapping lives. Long work asks at its stop points (base/progress.h), and nothing is committed without asking.
void install_mapping_guard();
void require_whole_mappings();

// Lets the system drop the memory of the whole pages of `bytes`, a part of a MappedFile that nobody has written to; they are read
// from the file again when they are touched. For what is rarely needed once another form of it exists.
void release_mapped(std::span<const std::byte> bytes);

// The whole of a regular file of at most max_bytes.
std::string read_text_file(const std::string& path, size_t max_bytes);

// Writes to `path`.tmp.<pid>, after removing what a killed process left there; commit() syncs, renames over `path` and syncs the folder. Without commit the destructor
// removes what was written. Each failing call throws Error{io} and leaves the old target as it was.
class AtomicFile {
 public:
  explicit AtomicFile(std::string path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }
  uint64_t size() const { return size_; }
  void commit();

 private:
  std::string path_, temporary_;
  int fd_ = -1;
  uint64_t size_ = 0;
};

// A whole file through AtomicFile.
void write_text_file(const std::string& path, std::string_view text);

// For work that ends in writing `path`: throws before it when something is there (an empty directory is nothing) and `replace`
// is not set, when it is a directory without a file named `mark` (which such results have), or when its folder cannot be written
// into.
void require_free_output(const std::string& path, bool replace, std::string_view mark = {});

// For work that ends in appending to `path`, or reads it late: throws now what would be thrown then.
void require_appendable(const std::string& path);
void require_readable(const std::string& path);

// AtomicFile's promise for a directory: files are written under staging(); commit() syncs them and renames the whole.
// The constructor refuses a target as require_free_output does; one that may be replaced is exchanged for the new one in one
// step and removed.
class AtomicDirectory {
 public:
  AtomicDirectory(std::string path, bool replace, std::string_view mark = {});
  ~AtomicDirectory();
  AtomicDirectory(const AtomicDirectory&) = delete;
  AtomicDirectory& operator=(const AtomicDirectory&) = delete;

  const std::string& staging() const { return staging_; }
  void commit();

 private:
  std::string path_, staging_;
  int lock_ = -1;  // held while the work goes on
  bool committed_ = false;
};

// Appends one line with a single write(2) under a lock, then syncs: after a kill the file holds whole lines only, except
// perhaps a cut last one, which the next append first cuts off (and readers of such files ignore).
// A last line that is cut must begin as all do, with `line_begin` (JSON); otherwise the file is another one and is refused.
void append_line(const std::string& path, std::string_view line, std::string_view line_begin);

}  // namespace frugal
