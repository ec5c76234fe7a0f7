#include "base/file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "base/log.h"

namespace frugal {
namespace fs = std::filesystem;
namespace {

class Descriptor {
 public:
  Descriptor(const std::string& path, int flags, mode_t mode = 0644) : fd_(::open(path.c_str(), flags | O_CLOEXEC, mode)) {
    if (fd_ < 0) fail_errno("cannot open", path);
  }
  ~Descriptor() { ::close(fd_); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

// O_NONBLOCK so that a FIFO does not block; regular files ignore it.
size_t open_size(const Descriptor& file, const std::string& path) {
  struct stat info {};
  if (::fstat(file.get(), &info) != 0) fail_errno("cannot stat", path);
  if (!S_ISREG(info.st_mode)) fail(ErrorKind::io, "{}: not a regular file", path);
  return static_cast<size_t>(info.st_size);
}

void write_all(int fd, std::span<const std::byte> bytes, const std::string& path, int64_t offset = -1) {
  while (!bytes.empty()) {
    const ssize_t written = offset < 0 ? ::write(fd, bytes.data(), bytes.size()) : ::pwrite(fd, bytes.data(), bytes.size(), offset);
    if (written < 0) {
      if (errno == EINTR) continue;
      fail_errno("cannot write", path);
    }
    bytes = bytes.subspan(static_cast<size_t>(written));
    if (offset >= 0) offset += written;
  }
}

void sync_path(const std::string& path) {
  const Descriptor file(path, O_RDONLY);
  if (::fsync(file.get()) != 0) fail_errno("cannot sync", path);
}

std::string parent_of(const std::string& path) {
  const std::string parent = fs::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

std::string without_trailing_slash(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

}  // namespace

std::shared_ptr<MappedFile> MappedFile::open(const std::string& path) {
  const Descriptor file(path, O_RDONLY | O_NONBLOCK);
  const size_t size = open_size(file, path);
  std::byte* data = nullptr;
  if (size > 0) {
    void* mapped = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, file.get(), 0);
    if (mapped == MAP_FAILED) fail_errno("cannot map", path);
    data = static_cast<std::byte*>(mapped);
  }
  return std::shared_ptr<MappedFile>(new MappedFile(path, data, size));
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(data_, size_);
}

std::string read_text_file(const std::string& path, size_t max_bytes) {
  const Descriptor file(path, O_RDONLY | O_NONBLOCK);
  const size_t size = open_size(file, path);
  if (size > max_bytes) fail(ErrorKind::invalid_input, "{}: {} bytes, more than the limit of {}", path, size, max_bytes);
  std::string text(size, '\0');
  size_t done = 0;
  while (done < size) {
    const ssize_t count = ::read(file.get(), text.data() + done, size - done);
    if (count < 0) {
      if (errno == EINTR) continue;
      fail_errno("cannot read", path);
    }
    if (count == 0) break;
    done += static_cast<size_t>(count);
  }
  text.resize(done);
  return text;
}

AtomicFile::AtomicFile(std::string path) : path_(std::move(path)), temporary_(fmt::format("{}.tmp.{}", path_, ::getpid())) {
  fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd_ < 0) fail_errno("cannot create", temporary_);
}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) {
    ::close(fd_);
    ::unlink(temporary_.c_str());
  }
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  write_all(fd_, bytes, temporary_);
  size_ += bytes.size();
}

void AtomicFile::write_at(uint64_t offset, std::span<const std::byte> bytes) {
  write_all(fd_, bytes, temporary_, static_cast<int64_t>(offset));
}

void AtomicFile::commit() {
  if (::fsync(fd_) != 0) fail_errno("cannot sync", temporary_);
  const int fd = fd_;
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail_errno("cannot rename to the target", path_);
  fd_ = -1;
  ::close(fd);
  sync_path(parent_of(path_));
}

void require_free_output(const std::string& path, bool replace, std::string_view mark) {
  std::error_code code;
  const bool taken = fs::is_directory(path, code) ? !fs::is_empty(path, code) : fs::exists(path, code);
  if (taken && replace && !mark.empty() && fs::is_directory(path, code) && !fs::exists(fs::path(path) / mark, code)) {
    fail(ErrorKind::invalid_input, "{}: is a directory without {}, so something else than what would replace it: it is kept", path, mark);
  }
  if (taken && !replace) fail(ErrorKind::invalid_input, "{}: exists; choose another output or pass --overwrite", path);
  const std::string parent = parent_of(without_trailing_slash(path));
  if (::access(parent.c_str(), W_OK) != 0) fail_errno("cannot write into", parent);
}

void require_appendable(const std::string& path) { const Descriptor file(path, O_WRONLY | O_CREAT | O_APPEND); }
void require_readable(const std::string& path) { const Descriptor file(path, O_RDONLY); }

AtomicDirectory::AtomicDirectory(std::string path, bool replace, std::string_view mark) : path_(without_trailing_slash(std::move(path))) {
  std::error_code code;
  if (fs::exists(path_, code) && !fs::is_directory(path_, code)) fail(ErrorKind::invalid_input, "{}: exists and is not a directory", path_);
  require_free_output(path_, replace, mark);
  staging_ = fmt::format("{}.tmp.{}", path_, ::getpid());
  fs::remove_all(staging_, code);
  if (::mkdir(staging_.c_str(), 0755) != 0) fail_errno("cannot create", staging_);
}

AtomicDirectory::~AtomicDirectory() {
  std::error_code code;
  if (!committed_) fs::remove_all(staging_, code);
}

void AtomicDirectory::commit() {
  for (const auto& entry : fs::recursive_directory_iterator(staging_)) sync_path(entry.path().string());
  sync_path(staging_);
  std::error_code code;
  // rename(2) replaces an empty directory; a full one is exchanged, so that the target is never absent.
  const bool exchange = fs::exists(path_, code) && !fs::is_empty(path_, code);
  if (::renameat2(AT_FDCWD, staging_.c_str(), AT_FDCWD, path_.c_str(), exchange ? RENAME_EXCHANGE : 0) != 0) {
    fail_errno("cannot rename to the target", path_);
  }
  committed_ = true;
  sync_path(parent_of(path_));
  if (exchange) fs::remove_all(staging_, code);  // now holds the old content
}

void append_line(const std::string& path, std::string_view line, std::string_view line_begin) {
  const Descriptor file(path, O_RDWR | O_CREAT | O_APPEND);
  if (::flock(file.get(), LOCK_EX) != 0) fail_errno("cannot lock", path);
  off_t size = ::lseek(file.get(), 0, SEEK_END);
  const off_t whole = size;
  char last = '\n';
  while (size > 0 && ::pread(file.get(), &last, 1, size - 1) == 1 && last != '\n') --size;
  std::string text = std::string(line) + "\n";
  if (size != whole) {
    std::string tail(static_cast<size_t>(whole - size), '\0');
    if (::pread(file.get(), tail.data(), tail.size(), size) != static_cast<ssize_t>(tail.size())) fail_errno("cannot read", path);
    // A line may be cut within its first bytes.
    const size_t shown = std::min(line_begin.size(), tail.size());
    if (line_begin.substr(0, shown) != tail.substr(0, shown)) fail(ErrorKind::invalid_input, "{}: its last line does not begin with {}: it is not a file of this kind", path, line_begin);
    if (tail.ends_with('}') && Json::accept(tail)) {
      text = "\n" + text;  // whole, only its newline is missing
      size = whole;
    } else {
      log_warning("{}: a cut last line of {} bytes was removed", path, whole - size);
      if (::ftruncate(file.get(), size) != 0) fail_errno("cannot truncate", path);
    }
  }
  try {
    write_all(file.get(), std::as_bytes(std::span(text)), path);
    if (::fsync(file.get()) != 0) fail_errno("cannot sync", path);
  } catch (...) {
    (void)!::ftruncate(file.get(), size);
    throw;
  }
}

}  // namespace frugal
