#include "train/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <system_error>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/progress.h"
#include "train/checkpoint.h"

namespace frugal::train {
namespace fs = std::filesystem;
namespace {

constexpr const char* kLock = ".lock";  // also the mark of a run's folder
constexpr const char* kLog = "trainer_log.jsonl";
constexpr const char* kIndex = "model.safetensors.index.json";

void sync_folder(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) fail_errno("cannot open", path);
  const bool synced = ::fsync(fd) == 0;
  ::close(fd);
  if (!synced) fail_errno("cannot sync", path);
}

// Whoever asks whether a run goes on (is_training) has a shared lock for a moment.
bool lock_for_training(int lock) {
  for (int attempt = 0; attempt < 20; ++attempt) {
    if (::flock(lock, LOCK_EX | LOCK_NB) == 0) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return false;
}

// Others have files of the lock's name too.
bool holds_run(const fs::path& folder) {
  std::error_code code;
  return fs::exists(folder / kLog, code) || (fs::exists(folder / kLock, code) && (has_checkpoints(folder) || is_training(folder)));
}

}  // namespace

RunFolder::RunFolder(const std::string& path, Existing existing, bool leads) : path_(path), lock_(-1), resumes_(existing == Existing::resume) {
  if (!leads) return;
  std::error_code code;
  fs::create_directories(path, code);
  if (code) fail(ErrorKind::io, "{}: cannot be created: {}", path, code.message());
  if (!fs::exists(fs::path(path) / kLock) && !fs::is_empty(path, code)) {
    fail(ErrorKind::invalid_input, "{}: holds files, but no run of frugal's: choose a new or an empty folder", path);
  }
  const std::string lock = path + "/" + kLock;
  lock_ = ::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock_ < 0) fail_errno("cannot open", lock);
  try {
    if (!lock_for_training(lock_)) fail(ErrorKind::invalid_input, "{}: another process trains into this folder", path);
    if (existing == Existing::refuse && has_checkpoints(path)) {
      fail(ErrorKind::invalid_input, "{}: holds the checkpoints of a run; --resume goes on with it, --overwrite removes them", path);
    }
    if (existing == Existing::replace) {
      remove_checkpoints(path);
      for (const char* part : {"runs", "initial", "trainer_log.jsonl", "teacher.jsonl"}) fs::remove_all(fs::path(path) / part);
    }
  } catch (...) {
    ::close(lock_);
    throw;
  }
}

RunFolder::~RunFolder() {
  if (lock_ >= 0) ::close(lock_);
}

void RunFolder::take_result(const std::string& from) const {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(from)) files.push_back(entry.path());
  std::sort(files.begin(), files.end(), [](const fs::path& a, const fs::path& b) { return (a.extension() == ".json") < (b.extension() == ".json"); });
  const fs::path output = path_;
  fs::remove(output / kIndex);  // readers prefer it to the file without shards
  std::vector<fs::path> shards;
  for (const auto& entry : fs::directory_iterator(output)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("model-") && name.ends_with(".safetensors")) shards.push_back(entry.path());
  }
  for (const fs::path& shard : shards) fs::remove(shard);
  for (const fs::path& file : files) fs::rename(file, output / file.filename());
  fs::remove_all(from);
  sync_folder(path_);
}

std::vector<std::string> find_run_folders(const std::string& path) {
  std::error_code code;
  if (!fs::is_directory(path, code)) fail(ErrorKind::io, "{}: {}", printable(path), fs::exists(path, code) ? "is no folder" : "does not exist");
  if (holds_run(path)) return {path};
  std::vector<std::string> found;
  fs::recursive_directory_iterator walk(path, fs::directory_options::skip_permission_denied, code);
  for (; !code && walk != fs::recursive_directory_iterator(); walk.increment(code)) {
    stop_point();
    std::error_code unknown;
    if (!walk->is_directory(unknown) || !holds_run(walk->path())) continue;
    found.push_back(walk->path().string());
    walk.disable_recursion_pending();
  }
  if (found.empty()) {
    fail(ErrorKind::invalid_input, "{}: holds no run, nor does a folder below it: a run's has a {}, which frugal train and tune write", printable(path), kLog);
  }
  std::sort(found.begin(), found.end());
  return found;
}

bool is_training(const std::string& path) {
  const int lock = ::open((path + "/" + kLock).c_str(), O_RDONLY | O_CLOEXEC);
  if (lock < 0) return false;
  const bool taken = ::flock(lock, LOCK_SH | LOCK_NB) != 0;
  ::close(lock);
  return taken;
}

bool holds_result(const std::string& path) {
  std::error_code code;
  return fs::exists(fs::path(path) / "adapter_config.json", code) || fs::exists(fs::path(path) / "config.json", code);
}

}  // namespace frugal::train
