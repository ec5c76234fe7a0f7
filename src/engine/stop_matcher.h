// Ends a stream of text before the first of some stop strings. Text that could be the beginning of one is held back until it
// is certain. Not thread-safe.
#pragma once

#include <string>
#include <vector>

namespace frugal::engine {

class StopMatcher {
 public:
  explicit StopMatcher(std::vector<std::string> stop);
  // Text that is certain to come before any stop string; after a match, what came before it.
  std::string push(const std::string& text);
  std::string flush();  // what is held back, when the stream has ended
  bool stopped() const { return stopped_; }
  const std::string& matched() const { return matched_; }  // the stop string that ended it

 private:
  std::vector<std::string> stop_;
  std::string held_, matched_;
  bool stopped_ = false;
};

}  // namespace frugal::engine
