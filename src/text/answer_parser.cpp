#include "text/answer_parser.h"

#include <algorithm>
#include <utility>

namespace frugal::text {
namespace {

constexpr std::string_view kSpace = " \t\r\n";
constexpr size_t kLongestHead = 4096;  // of a call, until its arguments begin

size_t skip_space(std::string_view text, size_t at = 0) { return std::min(text.find_first_not_of(kSpace, at), text.size()); }

// How much of the end of `text` may be the beginning of `mark`.
size_t begun_at_end(std::string_view text, std::string_view mark) {
  for (size_t length = std::min(text.size(), mark.size() - 1); length > 0; --length) {
    if (text.ends_with(mark.substr(0, length))) return length;
  }
  return 0;
}

size_t end_of_content(std::string_view text) {
  const size_t last = text.find_last_not_of(kSpace);
  return last == std::string_view::npos ? 0 : last + 1;
}

// Reads the beginning of a call, {"name": "...", "arguments": , from its text so far.
class HeadReader {
 public:
  HeadReader(std::string_view text, const ToolFormat& format) : text_(text) {
    if (format.separator.empty())
      read_object();
    else
      read_separated(format.separator);
  }
  bool unfinished() const { return unfinished_; }  // what there is may go on as a call
  bool complete() const { return complete_; }
  const std::string& name() const { return name_; }
  size_t arguments() const { return at_; }  // where they begin

 private:
  bool next(char c) {
    at_ = skip_space(text_, at_);
    unfinished_ = at_ == text_.size();
    return !unfinished_ && text_[at_] == c && ++at_ > 0;
  }
  bool string(std::string& value) {
    if (!next('"')) return false;
    const size_t begin = at_ - 1;
    at_ = std::min(text_.find_first_of("\"\\", at_), text_.size());  // an escape: another spelling than that of calls
    unfinished_ = at_ == text_.size();
    if (unfinished_ || text_[at_] != '"') return false;
    value = text_.substr(begin + 1, at_++ - begin - 1);
    return true;
  }
  void read_object() {
    std::string key;
    if (!next('{') || !string(key) || key != "name" || !next(':') || !string(name_) || !next(',') || !string(key)) return;
    if ((key != "arguments" && key != "parameters") || !next(':')) return;
    begin_arguments();
  }
  void read_separated(std::string_view separator) {
    const size_t found = text_.find(separator);
    unfinished_ = found == std::string_view::npos;
    if (unfinished_) return;
    const size_t begin = skip_space(text_);
    name_ = std::string(text_.substr(begin, end_of_content(text_.substr(0, found)) - begin));
    at_ = found + separator.size();
    begin_arguments();
  }
  void begin_arguments() {
    complete_ = next('{');
    if (complete_) --at_;
  }
  std::string_view text_;
  size_t at_ = 0;
  bool unfinished_ = false, complete_ = false;
  std::string name_;
};

}  // namespace

AnswerParser::AnswerParser(AnswerParserOptions options)
    : options_(std::move(options)),
      where_(options_.in_reasoning             ? Where::reasoning
             : options_.reasoning.open.empty() ? Where::content
                                               : Where::start) {}

AnswerDelta AnswerParser::push(std::string_view text) {
  held_ += text;
  AnswerDelta delta;
  while (step(delta, false)) {}
  return delta;
}

AnswerDelta AnswerParser::finish() {
  AnswerDelta delta;
  while (step(delta, true)) {}
  if (calls_ == 0 && !after_mark_) delta.content += space_;
  held_.clear();
  space_.clear();
  return delta;
}

bool AnswerParser::step(AnswerDelta& delta, bool last) {
  if (held_.empty()) return false;
  switch (where_) {
    case Where::start: return start(last);
    case Where::reasoning: return reason(delta, last);
    case Where::content: return content(delta, last);
    case Where::head: return head(delta, last);
    case Where::arguments: return arguments(delta);
    case Where::tail: return tail();
  }
  return false;
}

bool AnswerParser::start(bool last) {
  const std::string_view open = options_.reasoning.open, rest = std::string_view(held_).substr(skip_space(held_));
  const bool found = rest.starts_with(open);
  if (!found && !last && open.starts_with(rest)) return false;
  if (found) held_ = std::string(rest.substr(open.size()));
  where_ = found ? Where::reasoning : Where::content;
  return true;
}

bool AnswerParser::reason(AnswerDelta& delta, bool last) {
  const std::string_view close = options_.reasoning.close, text = held_;
  const size_t found = text.find(close);
  const bool closed = found != std::string_view::npos;
  const std::string_view all = text.substr(0, closed ? found : last ? text.size() : text.size() - begun_at_end(text, close));
  // White space at its ends is not part of it.
  const size_t begin = reasoned_ ? 0 : skip_space(all), end = end_of_content(all);
  if (end > begin) {
    delta.reasoning += all.substr(begin, end - begin);
    reasoned_ = true;
  }
  const bool more = closed || last;
  held_.erase(0, closed ? found + close.size() : last ? text.size() : std::max(end, std::min(begin, all.size())));
  if (closed) {
    where_ = Where::content;
    after_mark_ = true;
  }
  return more;
}

// White space is said when more text comes, and never behind a mark.
void AnswerParser::say(AnswerDelta& delta, std::string_view text) {
  const std::string all = std::exchange(space_, {}) + std::string(text);
  const size_t begin = after_mark_ ? skip_space(all) : 0, end = end_of_content(all);
  if (end > begin) {
    delta.content += std::string_view(all).substr(begin, end - begin);
    after_mark_ = false;
    said_ = true;
  }
  space_ = all.substr(std::max(begin, end));
}

bool AnswerParser::content(AnswerDelta& delta, bool last) {
  const std::string_view text = held_;
  size_t plain = text.size(), erased = text.size();
  bool call = false;
  const std::string_view open = options_.tools ? options_.tools->open : "";
  if (options_.tools && !open.empty() && !options_.calls_alone) {
    const size_t found = text.find(open);
    call = found != std::string_view::npos;
    plain = call ? found : last ? text.size() : text.size() - begun_at_end(text, open);
    erased = call ? found + open.size() : plain;
  } else if (options_.tools && !said_) {
    const std::string_view rest = text.substr(skip_space(text)), mark = open.empty() ? "{" : open;
    call = rest.starts_with(mark);
    if (call || (!last && mark.starts_with(rest))) plain = erased = text.size() - rest.size();
    if (call) erased += open.size();
  }
  say(delta, text.substr(0, plain));
  held_.erase(0, erased);
  if (call) where_ = Where::head;
  return call;
}

bool AnswerParser::head(AnswerDelta& delta, bool last) {
  const ToolFormat& format = *options_.tools;
  size_t begin = skip_space(held_);
  if (format.list && begin < held_.size() && held_[begin] == '[') ++begin;
  const HeadReader reader(std::string_view(held_).substr(begin), format);
  if (reader.unfinished() && !last && held_.size() < kLongestHead) return false;
  const bool known = std::ranges::find(options_.names, reader.name()) != options_.names.end();
  if (reader.complete() && known) {
    delta.calls.push_back({calls_++, reader.name(), {}});
    held_.erase(0, begin + reader.arguments());
    where_ = Where::arguments;
    return true;
  }
  // No call: text, with the mark that promised one.
  const std::string mark = format.open.empty() ? held_.substr(0, 1) : std::string(format.open);
  if (format.open.empty()) held_.erase(0, 1);
  say(delta, mark);
  where_ = Where::content;
  return true;
}

bool AnswerParser::arguments(AnswerDelta& delta) {
  size_t at = 0;
  bool complete = false;
  for (; at < held_.size() && !complete; ++at) {
    const char c = held_[at];
    if (in_string_) {
      if (!escaped_ && c == '"') in_string_ = false;
      escaped_ = !escaped_ && c == '\\';
    } else if (c == '"') {
      in_string_ = true;
    } else if (c == '{' || c == '[') {
      ++depth_;
    } else if (c == '}' || c == ']') {
      complete = --depth_ == 0;
    }
  }
  delta.calls.push_back({calls_ - 1, {}, held_.substr(0, at)});
  held_.erase(0, at);
  if (complete) {
    where_ = Where::tail;
    in_object_ = options_.tools->separator.empty();
  }
  return complete;
}

// What stands behind the arguments: the end of the call's object, and what its family puts behind or between calls.
bool AnswerParser::tail() {
  const ToolFormat& format = *options_.tools;
  held_.erase(0, skip_space(held_));
  if (held_.empty()) return false;
  if (in_object_ && held_.front() == '}') {
    in_object_ = false;
    held_.erase(0, 1);
    return true;
  }
  const std::string_view text = held_;
  if (!format.close.empty() && !text.starts_with(format.close) && format.close.starts_with(text)) return false;
  if (format.list && text.front() == ',') {
    held_.erase(0, 1);
    where_ = Where::head;
    return true;
  }
  if (format.list && text.front() == ']')
    held_.erase(0, 1);
  else if (!format.close.empty() && text.starts_with(format.close))
    held_.erase(0, format.close.size());
  where_ = Where::content;
  after_mark_ = true;
  return true;
}

}  // namespace frugal::text
