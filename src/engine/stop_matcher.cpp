#include "engine/stop_matcher.h"

#include <algorithm>
#include <string_view>

namespace frugal::engine {

StopMatcher::StopMatcher(std::vector<std::string> stop) : stop_(std::move(stop)) {
  std::erase_if(stop_, [](const std::string& text) { return text.empty(); });
}

std::string StopMatcher::push(const std::string& text) {
  if (stopped_) return "";
  held_ += text;
  // Of several matches the one that ends first, so that the result does not depend on how the text is cut into pushes.
  size_t first = std::string::npos, first_end = std::string::npos;
  for (const std::string& stop : stop_) {
    const size_t begin = held_.find(stop);
    if (begin == std::string::npos) continue;
    const size_t end = begin + stop.size();
    if (end < first_end || (end == first_end && begin < first)) first = begin, first_end = end;
  }
  if (first != std::string::npos) {
    stopped_ = true;
    matched_ = held_.substr(first, first_end - first);
    std::string before = held_.substr(0, first);
    held_.clear();
    return before;
  }
  // The longest end of what is held that begins a stop string.
  size_t keep = 0;
  for (const std::string& stop : stop_) {
    for (size_t length = std::min(stop.size() - 1, held_.size()); length > keep; --length) {
      if (std::string_view(held_).ends_with(std::string_view(stop).substr(0, length))) keep = length;
    }
  }
  std::string certain = held_.substr(0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return certain;
}

std::string StopMatcher::flush() {
  std::string rest;
  std::swap(rest, held_);
  return rest;
}

}  // namespace frugal::engine
