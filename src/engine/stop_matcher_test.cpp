#include "engine/stop_matcher.h"

#include <gtest/gtest.h>

namespace frugal::engine {
namespace {

TEST(StopMatcher, TextBeforeTheFirstStopStringComesOutWhateverThePieces) {
  const std::string text = "one two\nUser: three";
  for (size_t piece = 1; piece <= text.size(); ++piece) {
    StopMatcher matcher({"User:", "thr"});
    std::string out;
    for (size_t i = 0; i < text.size() && !matcher.stopped(); i += piece) out += matcher.push(text.substr(i, piece));
    EXPECT_TRUE(matcher.stopped());
    EXPECT_EQ(out, "one two\n") << piece;
    EXPECT_EQ(matcher.flush(), "");
  }
}

TEST(StopMatcher, ABeginningOfAStopStringIsHeldBackAndFlushedAtTheEnd) {
  StopMatcher matcher({"</s>"});
  EXPECT_EQ(matcher.push("a <"), "a ");
  EXPECT_EQ(matcher.push("/"), "");
  EXPECT_EQ(matcher.push("b"), "</b");
  EXPECT_EQ(matcher.push("</s"), "");
  EXPECT_FALSE(matcher.stopped());
  EXPECT_EQ(matcher.flush(), "</s");
}

}  // namespace
}  // namespace frugal::engine
