// How many requests each API key has under way, and a limit of them.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "serve/http/http.h"

namespace frugal::serve {

// Thread-safe.
class KeyLimit {
 public:
  // most: 0 for any number.
  explicit KeyLimit(int64_t most) : most_(most), under_way_(std::make_shared<Counts>()) {}
  // The response, which counts until its answer ends or the last who could write it lets go of it. Throws ApiError{429}.
  std::shared_ptr<HttpResponse> admit(const std::string& key, std::shared_ptr<HttpResponse> response);

 private:
  class Counted;
  struct Counts {
    std::mutex mutex;
    std::unordered_map<std::string, int64_t> by_key;  // none is 0
  };
  int64_t most_;
  std::shared_ptr<Counts> under_way_;
};

}  // namespace frugal::serve
