// Progress of long work, reported to a sink that cli/ installs (a bar on stderr, or nothing). Also the place where
// Ctrl-C arrives: long loops call step() or stop_point(), which throw Interrupted once a stop was asked for, so that
// destructors leave things whole.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>

#include "base/clock.h"

namespace frugal {

struct ProgressState {
  std::string name;
  int64_t done = 0;
  int64_t total = 0;         // 0: unknown
  double seconds = 0;        // since the work began
  double seconds_left = -1;  // estimate, -1: unknown
  std::string detail;
};

using ProgressSink = std::function<void(const ProgressState&, bool finished)>;
void set_progress_sink(ProgressSink sink);

// Thrown by stop_point() after request_stop(); cli/ turns it into exit code 130.
struct Interrupted {};
void request_stop();  // async-signal-safe
bool stop_requested();
void clear_stop();
// Where long work may end: throws Interrupted after request_stop(), and what require_whole_mappings() (base/file.h) throws.
void stop_point();

// One piece of work of `total` steps. Owned by the thread that does the work; not thread-safe.
class Progress {
 public:
  Progress(std::string name, int64_t total);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  void step(int64_t count = 1, std::string detail = {});

 private:
  ProgressState state_;
  Stopwatch watch_;
  double last_report_ = -1;
};

}  // namespace frugal
