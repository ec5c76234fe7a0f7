// Follows one request through a grammar, and says which tokens may come next.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "text/grammar/grammar.h"
#include "text/grammar/token_bytes.h"

namespace frugal::text {

// A copy goes on by itself from where the original stands. Copies share what they have learnt of the grammar (masks, states),
// so a server keeps one fresh matcher per grammar and copies it for each request. Copies may be used by different threads, one
// matcher by one thread at a time. All may throw Error{invalid_input} when the text so far has too many readings to follow
// (the constructor, when its start has); the matcher then stays as it was, and the request has failed.
class GrammarMatcher {
 public:
  GrammarMatcher(std::shared_ptr<const Grammar> grammar, std::shared_ptr<const TokenBytes> tokens);
  ~GrammarMatcher();
  GrammarMatcher(const GrammarMatcher& other);
  GrammarMatcher& operator=(const GrammarMatcher& other);

  // Overwrites `bits`, one bit per token id, id 0 the lowest bit of the first word; ids past the vocabulary are 0. Ids that end
  // a turn are set where the text may end. Throws Error{invalid_input} if no token is allowed, unless the matcher is finished.
  void allowed(std::span<uint32_t> bits);

  // False, and nothing changes, if the token or text cannot come next. An end id finishes the matcher: nothing is allowed then.
  bool accept(int32_t token);
  bool accept_bytes(std::string_view text);

  bool can_end() const;   // the text so far is complete
  bool must_end() const;  // and nothing can follow
  bool finished() const { return finished_; }

  // The bytes that are certain to come next, at most 4096; "" where there is a choice (to end is one).
  std::string forced();

 private:
  struct Shared;
  std::shared_ptr<Shared> shared_;
  uint32_t slot_;
  bool finished_ = false;
};

}  // namespace frugal::text
