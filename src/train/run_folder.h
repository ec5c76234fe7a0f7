// The folder that a run writes into: whose it is, and what is done with what it holds.
#pragma once

#include <string>
#include <vector>

namespace frugal::train {

enum class Existing {
  refuse,  // a folder that holds a run, or anything else, is left alone
  resume,  // the run in it goes on
  replace  // the run in it is removed: its checkpoints, logs and start; a result stays until the new one takes its place
};

// Locked against other processes as long as this lives, however it ends.
class RunFolder {
 public:
  // Throws Error{invalid_input} when another process trains into it, when what it holds is not a run, or is one and `existing` refuses; Error{io}.
  // leads: of several processes that train into it together the one that has the lock and writes; the others leave it alone.
  RunFolder(const std::string& path, Existing existing, bool leads = true);
  ~RunFolder();
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;

  const std::string& path() const { return path_; }
  bool resumes() const { return resumes_; }

  // The files of another folder, complete, take the place of those here, each by one rename, descriptions last; shards of an earlier result go.
  void take_result(const std::string& from) const;

 private:
  std::string path_;
  int lock_;
  bool resumes_;
};

// The folder itself when it holds a run (a log, or checkpoints, or one that begins), else all below it that do, by name; links are not followed. Throws Error{invalid_input}
// when there is none, Error{io} when `path` is no folder.
std::vector<std::string> find_run_folders(const std::string& path);
bool is_training(const std::string& path);   // a process has its lock
bool holds_result(const std::string& path);  // an adapter or a model: what a run that was not stopped leaves

}  // namespace frugal::train
