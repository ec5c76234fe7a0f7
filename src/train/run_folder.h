// The folder that a run writes into: whose it is, and what is done with what it holds.
#pragma once

#include <string>

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
  RunFolder(const std::string& path, Existing existing);
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

}  // namespace frugal::train
