#include "text/pre_tokenizer.h"

#include "text/unicode.h"

namespace frugal::text {
namespace {

// Delimiters found in [begin, end): the stretches of valid UTF-8 are searched; a stretch of invalid bytes is a
// delimiter of its own, so that it never shares a piece with text.
class Splitter : public SplitStep {
 public:
  Splitter(SplitBehavior behavior, bool invert) : behavior_(behavior), invert_(invert) {}

  void apply(Pieces& pieces) const override {
    std::vector<Range> result;
    std::vector<Range> delimiters;
    for (const auto& [begin, end] : pieces.ranges) {
      const std::string_view piece = std::string_view(pieces.text).substr(begin, end - begin);
      for (const Utf8Run& run : utf8_runs(piece)) {
        if (!run.valid) {
          result.emplace_back(begin + run.begin, begin + run.end);
          continue;
        }
        delimiters.clear();
        find(piece.substr(run.begin, run.end - run.begin), begin + run.begin, delimiters, pieces.most);
        const bool cut_off = delimiters.size() >= pieces.most;
        cut({begin + run.begin, cut_off ? delimiters.back().second : begin + run.end}, delimiters, result);
        if (cut_off && !result.empty()) result.pop_back();  // it may go on
        pieces.cut |= cut_off;
      }
      pieces.cut |= result.size() > pieces.most;
      if (pieces.cut) break;
    }
    pieces.ranges = std::move(result);
  }

 protected:
  // Appends non-empty, ordered, disjoint ranges offset by `base`; may stop at `most` of them.
  virtual void find(std::string_view text, size_t base, std::vector<Range>& delimiters, size_t most) const = 0;

 private:
  struct Part {
    Range range;
    bool delimiter;
  };

  void cut(Range whole, const std::vector<Range>& delimiters, std::vector<Range>& result) const {
    std::vector<Part> parts;
    size_t at = whole.first;
    for (const Range& range : delimiters) {
      if (range.first > at) parts.push_back({{at, range.first}, invert_});
      parts.push_back({range, !invert_});
      at = range.second;
    }
    if (at < whole.second) parts.push_back({{at, whole.second}, invert_});
    join(parts, result);
  }

  void join(const std::vector<Part>& parts, std::vector<Range>& result) const {
    for (size_t i = 0; i < parts.size(); ++i) {
      const Part& part = parts[i];
      bool extend = false;  // the last result grows
      switch (behavior_) {
        case SplitBehavior::removed:
          if (part.delimiter) continue;
          break;
        case SplitBehavior::isolated: break;
        case SplitBehavior::contiguous: extend = i > 0 && part.delimiter == parts[i - 1].delimiter; break;
        case SplitBehavior::merged_with_previous: extend = i > 0 && part.delimiter && !parts[i - 1].delimiter; break;
        case SplitBehavior::merged_with_next: extend = i > 0 && !part.delimiter && parts[i - 1].delimiter; break;
      }
      if (extend) {
        result.back().second = part.range.second;
      } else {
        result.push_back(part.range);
      }
    }
  }

  SplitBehavior behavior_;
  bool invert_;
};

class PatternSplitter final : public Splitter {
 public:
  PatternSplitter(std::shared_ptr<const Pattern> pattern, SplitBehavior behavior, bool invert) : Splitter(behavior, invert), pattern_(std::move(pattern)) {}

 protected:
  void find(std::string_view text, size_t base, std::vector<Range>& delimiters, size_t most) const override {
    pattern_->find_all(text, base, delimiters, most);
  }

 private:
  std::shared_ptr<const Pattern> pattern_;
};

class TextSplitter final : public Splitter {
 public:
  TextSplitter(std::string delimiter, SplitBehavior behavior, bool invert) : Splitter(behavior, invert), delimiter_(std::move(delimiter)) {}

 protected:
  void find(std::string_view text, size_t base, std::vector<Range>& delimiters, size_t most) const override {
    if (delimiter_.empty()) return;
    for (size_t at = text.find(delimiter_); at != std::string_view::npos && delimiters.size() < most; at = text.find(delimiter_, at + delimiter_.size())) {
      delimiters.emplace_back(base + at, base + at + delimiter_.size());
    }
  }

 private:
  std::string delimiter_;
};

class ClassSplitter final : public Splitter {
 public:
  ClassSplitter(CharClass char_class, SplitBehavior behavior) : Splitter(behavior, false), class_(char_class) {}

 protected:
  void find(std::string_view text, size_t base, std::vector<Range>& delimiters, size_t most) const override {
    for (size_t at = 0; at < text.size() && delimiters.size() < most;) {
      const DecodedChar c = decode_char(text, at);
      const bool hit = class_ == CharClass::digit ? is_numeric(c.code) : class_ == CharClass::whitespace ? is_whitespace(c.code) : is_bert_punctuation(c.code);
      if (hit) delimiters.emplace_back(base + at, base + at + c.length);
      at += c.length;
    }
  }

 private:
  CharClass class_;
};

class TrailingWhitespace final : public Splitter {
 public:
  TrailingWhitespace() : Splitter(SplitBehavior::isolated, false) {}

 protected:
  void find(std::string_view text, size_t base, std::vector<Range>& delimiters, size_t) const override {
    size_t begin = std::string_view::npos, line_end = std::string_view::npos;
    const auto finish = [&](size_t end) {
      if (begin != std::string_view::npos && end != std::string_view::npos && end > begin) delimiters.emplace_back(base + begin, base + end);
      begin = line_end = std::string_view::npos;
    };
    for (size_t at = 0; at < text.size();) {
      const DecodedChar c = decode_char(text, at);
      if (is_whitespace(c.code)) {
        if (begin == std::string_view::npos) begin = at;
        if (c.code == '\n') line_end = at;  // `$` is also true before a line feed
      } else {
        finish(line_end);
      }
      at += c.length;
    }
    finish(text.size());
  }
};

class DigitGroups final : public Splitter {
 public:
  DigitGroups() : Splitter(SplitBehavior::isolated, false) {}

 protected:
  void find(std::string_view text, size_t base, std::vector<Range>& delimiters, size_t) const override {
    static const Pattern digits(R"(\d+(?!\w))", "digit groups", true);
    static const Pattern one_digit(R"(\d)", "digit groups", true);
    std::vector<Range> runs, single;
    digits.find_all(text, 0, runs);
    for (const auto& [begin, end] : runs) {
      // Backtracking can leave "12" of "123a"; a group must end where the digits do.
      single.clear();
      one_digit.find_all(text.substr(end, std::min<size_t>(4, text.size() - end)), 0, single);
      if (!single.empty() && single.front().first == 0) continue;
      single.clear();
      one_digit.find_all(text.substr(begin, end - begin), base + begin, single);
      for (size_t i = 0; i < single.size();) {
        const size_t left = single.size() - i;
        const size_t count = left % 3 == 0 ? 3 : left % 3;
        delimiters.emplace_back(single[i].first, single[i + count - 1].second);
        i += count;
      }
    }
  }
};

class PrefixSpace final : public SplitStep {
 public:
  void apply(Pieces& pieces) const override {
    std::string text;
    text.reserve(pieces.text.size() + pieces.ranges.size());
    for (auto& [begin, end] : pieces.ranges) {
      const std::string_view piece = std::string_view(pieces.text).substr(begin, end - begin);
      begin = text.size();
      if (!piece.starts_with(' ')) text += ' ';
      text += piece;
      end = text.size();
    }
    pieces.text = std::move(text);
  }
};

class ByteMapper final : public SplitStep {
 public:
  void apply(Pieces& pieces) const override {
    std::string text;
    for (auto& [begin, end] : pieces.ranges) {
      const std::string visible = bytes_to_visible(std::string_view(pieces.text).substr(begin, end - begin));
      begin = text.size();
      text += visible;
      end = text.size();
    }
    pieces.text = std::move(text);
  }
};

class Metaspace final : public SplitStep {
 public:
  Metaspace(std::string replacement, PrependScheme scheme, bool split) : replacement_(std::move(replacement)), scheme_(scheme), split_(split) {}

  void apply(Pieces& pieces) const override {
    std::string text;
    std::vector<Range> result;
    bool first = pieces.at_start;
    for (const auto& [begin, end] : pieces.ranges) {
      const size_t start = text.size();
      replace_spaces(std::string_view(pieces.text).substr(begin, end - begin), first, text);
      first = false;
      cut(text, start, result);
    }
    pieces.text = std::move(text);
    pieces.ranges = std::move(result);
  }

 private:
  void replace_spaces(std::string_view piece, bool first, std::string& out) const {
    const bool prepend = scheme_ == PrependScheme::always || (scheme_ == PrependScheme::first && first);
    if (prepend && !piece.starts_with(' ') && !piece.starts_with(replacement_)) out += replacement_;
    for (const char c : piece) {
      if (c == ' ') {
        out += replacement_;
      } else {
        out += c;
      }
    }
  }

  void cut(std::string_view text, size_t start, std::vector<Range>& result) const {
    if (start == text.size()) return;
    size_t begin = start;
    if (split_) {
      for (size_t at = text.find(replacement_, start + 1); at != std::string_view::npos; at = text.find(replacement_, at + 1)) {
        result.emplace_back(begin, at);
        begin = at;
      }
    }
    result.emplace_back(begin, text.size());
  }

  std::string replacement_;
  PrependScheme scheme_;
  bool split_;
};

}  // namespace

std::unique_ptr<const SplitStep> split_by_pattern(std::shared_ptr<const Pattern> pattern, SplitBehavior behavior, bool invert) {
  return std::make_unique<PatternSplitter>(std::move(pattern), behavior, invert);
}
std::unique_ptr<const SplitStep> split_by_text(std::string delimiter, SplitBehavior behavior, bool invert) {
  return std::make_unique<TextSplitter>(std::move(delimiter), behavior, invert);
}
std::unique_ptr<const SplitStep> split_by_class(CharClass char_class, SplitBehavior behavior) { return std::make_unique<ClassSplitter>(char_class, behavior); }
std::unique_ptr<const SplitStep> split_trailing_whitespace() { return std::make_unique<TrailingWhitespace>(); }
std::unique_ptr<const SplitStep> split_digit_groups() { return std::make_unique<DigitGroups>(); }
std::unique_ptr<const SplitStep> split_by_known_slow_pattern(std::string_view regex) {
  if (regex == R"(\s+$)") return split_trailing_whitespace();
  if (regex == R"(\d{1,3}(?=(?:\d{3})*\b))") return split_digit_groups();
  return nullptr;
}
std::unique_ptr<const SplitStep> add_prefix_space() { return std::make_unique<PrefixSpace>(); }
std::unique_ptr<const SplitStep> map_bytes() { return std::make_unique<ByteMapper>(); }
std::unique_ptr<const SplitStep> metaspace(std::string replacement, PrependScheme scheme, bool split) {
  return std::make_unique<Metaspace>(std::move(replacement), scheme, split);
}

Pieces pre_tokenize(const PreTokenizer& pre_tokenizer, std::string text, bool at_start, size_t most) {
  Pieces pieces{std::move(text), {}, at_start, most};
  if (!pieces.text.empty()) pieces.ranges.emplace_back(0, pieces.text.size());
  for (const auto& step : pre_tokenizer.steps) step->apply(pieces);
  return pieces;
}

}  // namespace frugal::text
