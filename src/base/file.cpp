#include "base/file.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <charconv>
#include <mutex>

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

// For a file that is written or read later: a pipe would block for ever where nobody is at its other end.
void refuse_pipe(const Descriptor& file, const std::string& path) {
  struct stat info {};
  if (::fstat(file.get(), &info) != 0) fail_errno("cannot stat", path);
  if (S_ISFIFO(info.st_mode)) fail(ErrorKind::io, "{}: is a pipe", path);
}

void write_all(int fd, std::span<const std::byte> bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      fail_errno("cannot write", path);
    }
    bytes = bytes.subspan(static_cast<size_t>(written));
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

// Removes what killed runs left of the same output: PATH.tmp.<pid> of a process that is no more here and holds no lock elsewhere
// (another container or machine has process numbers of its own).
void remove_leftovers(const std::string& path) {
  const std::string prefix = fs::path(path).filename().string() + ".tmp.";
  std::error_code code;
  for (const auto& entry : fs::directory_iterator(parent_of(path), code)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(prefix)) continue;
    pid_t pid = 0;
    const auto [end, failure] = std::from_chars(name.data() + prefix.size(), name.data() + name.size(), pid);
    if (failure != std::errc{} || end != name.data() + name.size() || pid <= 0 || ::kill(pid, 0) == 0 || errno != ESRCH) continue;
    const int fd = ::open(entry.path().c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) continue;
    if (::flock(fd, LOCK_EX | LOCK_NB) == 0) fs::remove_all(entry.path(), code);
    ::close(fd);
  }
}

// What the signal handler knows of a mapping. Entries are used again but never freed, so the handler may walk them at any time.
struct Mapping {
  std::atomic<const std::byte*> begin{nullptr};
  std::atomic<size_t> size{0};
  std::atomic<bool> cut{false};
  std::string path;  // not for the handler
  Mapping* next = nullptr;
};
std::atomic<Mapping*> mappings{nullptr};
std::mutex mappings_mutex;
std::atomic<bool> some_cut{false};

void remember_mapping(const std::byte* begin, size_t size, const std::string& path) {
  const std::lock_guard lock(mappings_mutex);
  Mapping* entry = mappings.load();
  while (entry && entry->begin.load()) entry = entry->next;
  const bool fresh = !entry;
  if (fresh) entry = new Mapping;
  entry->path = path;
  entry->cut = false;
  entry->size = size;
  entry->begin = begin;
  if (fresh) {
    entry->next = mappings.load();
    mappings = entry;
  }
}

void forget_mapping(const std::byte* begin) {
  const std::lock_guard lock(mappings_mutex);
  bool still_cut = false;
  for (Mapping* entry = mappings.load(); entry; entry = entry->next) {
    if (entry->begin.load() == begin) {
      entry->begin = nullptr;
      entry->cut = false;
    }
    still_cut = still_cut || entry->cut.load();
  }
  some_cut = still_cut;
}

void on_bus_error(int, siginfo_t* info, void*) {
  const auto* address = static_cast<const std::byte*>(info->si_addr);
  for (Mapping* entry = mappings.load(); entry; entry = entry->next) {
    const std::byte* begin = entry->begin.load();
    if (!begin || address < begin || address >= begin + entry->size.load()) continue;
    static const auto page_size = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
    void* page = reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(address) / page_size * page_size);
    if (::mmap(page, page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED) break;
    entry->cut = true;
    some_cut = true;
    return;
  }
  ::signal(SIGBUS, SIG_DFL);  // not a page of ours: the touch is repeated and ends the process
}

}  // namespace

void install_mapping_guard() {
  struct sigaction action {};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO;
  ::sigaction(SIGBUS, &action, nullptr);
}

void require_whole_mappings() {
  if (!some_cut.load(std::memory_order_relaxed)) return;
  const std::lock_guard lock(mappings_mutex);
  for (Mapping* entry = mappings.load(); entry; entry = entry->next) {
    if (entry->cut.load()) fail(ErrorKind::io, "{}: was cut while it was in use: some of its {} bytes are gone", entry->path, entry->size.load());
  }
}

void release_mapped(std::span<const std::byte> bytes) {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(bytes.data()), end = begin + bytes.size();
  const uintptr_t first = (begin + page - 1) / page * page, last = end / page * page;
  if (first >= last) return;
  const std::lock_guard lock(mappings_mutex);
  for (const Mapping* entry = mappings.load(); entry; entry = entry->next) {
    const auto start = reinterpret_cast<uintptr_t>(entry->begin.load());
    // Only in a mapping of ours: elsewhere the advice would turn memory to zeros. A page that replaces a lost one stays, too.
    if (start == 0 || first < start || last > start + entry->size.load() || entry->cut.load()) continue;
    ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
    return;
  }
}

MappedFile::MappedFile(std::string path, std::byte* data, size_t size) : path_(std::move(path)), data_(data), size_(size) {
  if (data_) remember_mapping(data_, size_, path_);
}

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
  if (!data_) return;
  forget_mapping(data_);
  ::munmap(data_, size_);
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
  remove_leftovers(path_);
  fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd_ < 0) fail_errno("cannot create", temporary_);
  ::flock(fd_, LOCK_EX | LOCK_NB);  // tells remove_leftovers() of others that someone is at work
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

void AtomicFile::commit() {
  require_whole_mappings();
  if (::fsync(fd_) != 0) fail_errno("cannot sync", temporary_);
  const int fd = fd_;
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail_errno("cannot rename to the target", path_);
  fd_ = -1;
  ::close(fd);
  sync_path(parent_of(path_));
}

void write_text_file(const std::string& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

void require_free_output(const std::string& path, bool replace, std::string_view mark) {
  if (path.empty()) fail(ErrorKind::invalid_input, "the output has no name");
  std::error_code code;
  const bool taken = fs::is_directory(path, code) ? !fs::is_empty(path, code) : fs::exists(path, code);
  if (taken && replace && !mark.empty() && fs::is_directory(path, code) && !fs::exists(fs::path(path) / mark, code)) {
    fail(ErrorKind::invalid_input, "{}: is a directory without {}, so something else than what would replace it: it is kept", path, mark);
  }
  if (taken && !replace) fail(ErrorKind::invalid_input, "{}: exists; choose another output or pass --overwrite", path);
  const std::string parent = parent_of(without_trailing_slash(path));
  if (::access(parent.c_str(), W_OK) != 0) fail_errno("cannot write into", parent);
}

void require_appendable(const std::string& path) { refuse_pipe(Descriptor(path, O_WRONLY | O_CREAT | O_APPEND | O_NONBLOCK), path); }
void require_readable(const std::string& path) { refuse_pipe(Descriptor(path, O_RDONLY | O_NONBLOCK), path); }

AtomicDirectory::AtomicDirectory(std::string path, bool replace, std::string_view mark) : path_(without_trailing_slash(std::move(path))) {
  std::error_code code;
  if (fs::exists(path_, code) && !fs::is_directory(path_, code)) fail(ErrorKind::invalid_input, "{}: exists and is not a directory", path_);
  require_free_output(path_, replace, mark);
  staging_ = fmt::format("{}.tmp.{}", path_, ::getpid());
  remove_leftovers(path_);
  fs::remove_all(staging_, code);
  if (::mkdir(staging_.c_str(), 0755) != 0) fail_errno("cannot create", staging_);
  lock_ = ::open(staging_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (lock_ >= 0) ::flock(lock_, LOCK_EX | LOCK_NB);
}

AtomicDirectory::~AtomicDirectory() {
  if (lock_ >= 0) ::close(lock_);
  std::error_code code;
  if (!committed_) fs::remove_all(staging_, code);
}

void AtomicDirectory::commit() {
  require_whole_mappings();
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
  const Descriptor file(path, O_RDWR | O_CREAT | O_APPEND | O_NONBLOCK);
  refuse_pipe(file, path);
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
    if (line_begin.substr(0, shown) != tail.substr(0, shown))
      fail(ErrorKind::invalid_input, "{}: its last line does not begin with {}: it is not a file of this kind", path, line_begin);
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
    if (size == 0) sync_path(parent_of(path));  // it may be new
  } catch (...) {
    (void)!::ftruncate(file.get(), size);
    throw;
  }
}

}  // namespace frugal
