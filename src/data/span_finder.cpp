#include "data/span_finder.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace frugal::data {

MarkedText marked(const std::vector<text::RenderedSegment>& segments) {
  MarkedText result;
  for (const text::RenderedSegment& segment : segments) {
    result.text += segment.text;
    result.from_data.resize(result.text.size(), segment.from_data);
  }
  return result;
}

SpanFinder::SpanFinder(const Json& messages, const MarkedText& whole, std::vector<size_t> ends, RenderMessages render)
    : messages_(messages), whole_(whole), ends_(std::move(ends)), render_(std::move(render)) {}

ByteSpan SpanFinder::answer(size_t index) const {
  const size_t begin = start_of_answer(index), limit = limit_of_answer(index, begin);
  const size_t last = last_end(limit);
  if (last <= begin) return {begin, limit};  // the template ends no turn with a token
  const auto data = [&](size_t byte) { return whole_.from_data[byte]; };
  size_t first_data = begin, data_end = last;
  while (first_data < last && !data(first_data)) ++first_data;
  while (data_end > begin && !data(data_end - 1)) --data_end;
  if (index == 0 && first_data == last) refuse(index, "it has no content");
  if (first_data < last && last_end(first_data) > begin) refuse(index, "another turn lies before its content");
  return {begin, *std::ranges::upper_bound(ends_, data_end)};
}

ByteSpan SpanFinder::contents(size_t index) const {
  size_t begin = index == 0 ? 0 : whole_prefix(index), end = whole_prefix(index + 1);
  while (begin < end && !whole_.from_data[begin]) ++begin;
  while (begin < end && !whole_.from_data[end - 1]) --end;
  return {begin, end};
}

Json SpanFinder::first(size_t count) const {
  Json part = Json::array();
  for (size_t i = 0; i < count; ++i) part.push_back(messages_[i]);
  return part;
}

size_t SpanFinder::common(const MarkedText& other) const {
  const size_t most = std::min(whole_.text.size(), other.text.size());
  size_t count = 0;
  while (count < most && whole_.text[count] == other.text[count] && whole_.from_data[count] == other.from_data[count]) ++count;
  return count;
}

size_t SpanFinder::last_end(size_t limit) const {
  const auto after = std::ranges::upper_bound(ends_, limit);
  return after == ends_.begin() ? 0 : *std::prev(after);
}

size_t SpanFinder::start_of_answer(size_t index) const {
  const MarkedText prompt = render_(first(index), true);
  const size_t same = common(prompt);
  if (same == prompt.text.size()) return same;
  if (index == 0) refuse(index, "what the template writes before it is not the prompt of an empty conversation");
  const MarkedText before = render_(first(index), false);
  if (common(before) < before.text.size()) refuse(index, "the template writes the messages before it otherwise once it is there");
  if (same <= before.text.size()) refuse(index, "its header is not the one that add_generation_prompt writes");
  return same;
}

size_t SpanFinder::limit_of_answer(size_t index, size_t begin) const {
  if (index + 1 == messages_.size()) return whole_.text.size();
  const MarkedText upto = render_(first(index + 1), false);
  const size_t limit = common(upto);
  if (limit == upto.text.size()) {
    if (limit < begin) refuse(index, "its rendering ends before its prompt does");
    if (last_end(limit) > begin) return limit;
    // No token says that it is whole: nothing of it may follow.
    const size_t next = start_of_next(index);
    size_t at = limit;
    while (at < next && !whole_.from_data[at]) ++at;
    if (at >= next) return limit;
  } else if (const size_t next = start_of_next(index); next < whole_.text.size() && last_end(next) > begin) {
    return next;
  }
  refuse(index, "the template writes it otherwise once a message follows, and ends it with no token of an end of turn");
}

// Where the contents of the next message begin: the first difference to a conversation that has another one there.
size_t SpanFinder::start_of_next(size_t index) const {
  Json others = messages_;
  const std::string content = messages_[index + 1]["content"].get<std::string>();
  const size_t begin = content.find_first_not_of(" \t\r\n");
  others[index + 1] = {{"role", messages_[index + 1]["role"]}, {"content", begin != content.npos && content[begin] == '0' ? "1" : "0"}};
  return common(render_(others, false));
}

size_t SpanFinder::whole_prefix(size_t count) const {
  if (count == messages_.size()) return whole_.text.size();
  const MarkedText part = render_(first(count), false);
  if (common(part) < part.text.size()) refuse(count - 1, "the template writes the messages up to it otherwise once others follow");
  return part.text.size();
}

void SpanFinder::refuse(size_t index, std::string_view reason) const {
  fail(ErrorKind::invalid_input,
       "messages[{}]: cannot tell which tokens it has: {}. A template that marks them with {{% generation %}} can; or split the conversation there", index,
       reason);
}

}  // namespace frugal::data
