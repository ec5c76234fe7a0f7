#include "text/normalizer.h"

#include <utf8proc.h>

#include "base/error.h"
#include "text/unicode.h"

namespace frugal::text {
namespace {

constexpr size_t kMaxGrowth = 32;

template <typename Function>
class FunctionStep final : public NormalizerStep {
 public:
  explicit FunctionStep(Function function) : function_(std::move(function)) {}
  std::string apply(std::string text) const override { return function_(std::move(text)); }

 private:
  Function function_;
};

template <typename Function>
std::unique_ptr<const NormalizerStep> make_step(Function function) {
  return std::make_unique<FunctionStep<Function>>(std::move(function));
}

// visit(character, its bytes) for each valid character; invalid bytes are copied to `out`.
template <typename Visit>
void for_each_char(std::string_view text, std::string& out, Visit visit) {
  for (size_t at = 0; at < text.size();) {
    const DecodedChar c = decode_char(text, at);
    const std::string_view bytes = text.substr(at, c.length);
    if (c.valid) {
      visit(c.code, bytes);
    } else {
      out += bytes;
    }
    at += c.length;
  }
}

std::string replace_ranges(std::string_view text, const std::vector<Range>& ranges, std::string_view replacement) {
  const size_t limit = text.size() * kMaxGrowth + 4096;
  std::string out;
  size_t done = 0;
  for (const auto& [begin, end] : ranges) {
    out.append(text.substr(done, begin - done));
    out += replacement;
    if (out.size() > limit) {
      fail(ErrorKind::invalid_input, "the normalizer's Replace makes {} bytes of text grow beyond {}", text.size(), limit);
    }
    done = end;
  }
  out.append(text.substr(done));
  return out;
}

std::string clean_bert(std::string_view text, const BertOptions& options) {
  std::string out;
  out.reserve(text.size());
  for_each_char(text, out, [&](uint32_t code, std::string_view bytes) {
    if (options.clean_text) {
      if (code == 0 || code == 0xFFFD || is_bert_control(code)) return;
      if (is_whitespace(code)) {
        out += ' ';
        return;
      }
    }
    if (options.handle_chinese_chars && is_cjk_ideograph(code)) {
      out += ' ';
      out += bytes;
      out += ' ';
    } else {
      out += bytes;
    }
  });
  return out;
}

template <typename Drop>
std::string drop_chars(std::string_view text, Drop drop) {
  std::string out;
  out.reserve(text.size());
  for_each_char(text, out, [&](uint32_t code, std::string_view bytes) {
    if (!drop(code)) out += bytes;
  });
  return out;
}

std::string strip_spaces(std::string_view text, bool left, bool right) {
  size_t begin = 0, end = text.size();
  while (left && begin < end) {
    const DecodedChar c = decode_char(text, begin);
    if (!c.valid || !is_whitespace(c.code)) break;
    begin += c.length;
  }
  while (right && end > begin) {
    size_t start = end - 1;
    while (start > begin && end - start < 4 && (static_cast<uint8_t>(text[start]) & 0xC0) == 0x80) --start;
    const DecodedChar c = decode_char(text.substr(0, end), start);
    if (!c.valid || !is_whitespace(c.code)) break;
    end = start;
  }
  return std::string(text.substr(begin, end - begin));
}

std::string map_graphemes(std::string_view text, const Charsmap& map) {
  std::string out;
  const auto flush = [&](std::string_view grapheme) {
    if (grapheme.size() < 6) {
      if (const auto match = map.shortest(grapheme)) {
        out += match->replacement;
        return;
      }
    }
    for_each_char(grapheme, out, [&](uint32_t, std::string_view bytes) {
      const auto match = map.shortest(bytes);
      out += match ? match->replacement : bytes;
    });
  };
  size_t begin = 0;
  utf8proc_int32_t state = 0, previous = -1;
  for (size_t at = 0; at < text.size();) {
    const DecodedChar c = decode_char(text, at);
    const auto code = static_cast<utf8proc_int32_t>(c.code);
    if (previous >= 0 && utf8proc_grapheme_break_stateful(previous, code, &state)) {
      flush(text.substr(begin, at - begin));
      begin = at;
    }
    previous = code;
    at += c.length;
  }
  flush(text.substr(begin));
  return out;
}

// The steps of SentencePiece's Normalizer::Normalize, in its order.
class SentencePieceStep final : public NormalizerStep {
 public:
  explicit SentencePieceStep(SentencePieceOptions options) : options_(std::move(options)) {
    for (const std::string& token : options_.user_defined) {
      if (!token.empty()) user_defined_.insert(token, 0);
    }
  }

  std::string apply(std::string text) const override {
    std::string_view left = text;
    std::string out;
    if (options_.remove_extra_whitespaces) {
      while (!left.empty()) {
        const auto [piece, length] = next(left);
        if (piece != " ") break;
        left.remove_prefix(length);
      }
    }
    if (left.empty()) return out;
    const std::string_view space = options_.escape_whitespaces ? kSpaceSymbol : std::string_view(" ");
    if (options_.add_dummy_prefix && !options_.whitespace_as_suffix) out += space;
    bool after_space = options_.remove_extra_whitespaces;
    while (!left.empty()) {
      auto [piece, length] = next(left);
      while (after_space && piece.starts_with(' ')) piece.remove_prefix(1);
      for (const char c : piece) {
        if (c == ' ') {
          out += space;
        } else {
          out += c;
        }
      }
      if (!piece.empty()) after_space = options_.remove_extra_whitespaces && piece.ends_with(' ');
      left.remove_prefix(length);
    }
    while (options_.remove_extra_whitespaces && std::string_view(out).ends_with(space)) out.resize(out.size() - space.size());
    if (options_.add_dummy_prefix && options_.whitespace_as_suffix) out += space;
    return out;
  }

 private:
  // What the next bytes become, and how many they are.
  std::pair<std::string_view, size_t> next(std::string_view text) const {
    size_t length = 0;
    int32_t node = Trie::kRoot;
    for (size_t i = 0; i < text.size();) {
      node = user_defined_.child(node, static_cast<uint8_t>(text[i++]));
      if (node == Trie::kNone) break;
      if (user_defined_.value(node) != Trie::kNone) length = i;
    }
    if (length > 0) return {text.substr(0, length), length};
    if (const auto match = options_.charsmap.longest(text)) return {match->replacement, match->length};
    length = decode_char(text, 0).length;
    return {text.substr(0, length), length};
  }

  SentencePieceOptions options_;
  Trie user_defined_;
};

}  // namespace

std::unique_ptr<const NormalizerStep> normal_form(NormalForm form) {
  return make_step([form](std::string text) { return normalize(text, form); });
}

std::unique_ptr<const NormalizerStep> lowercase_step() {
  return make_step([](std::string text) { return lowercase(text); });
}

std::unique_ptr<const NormalizerStep> prepend(std::string prefix) {
  return make_step([prefix = std::move(prefix)](std::string text) { return text.empty() ? text : prefix + text; });
}

std::unique_ptr<const NormalizerStep> replace_text(std::string what, std::string replacement) {
  return make_step([what = std::move(what), replacement = std::move(replacement)](std::string text) {
    std::vector<Range> ranges;
    for (size_t at = text.find(what); at != std::string::npos && !what.empty(); at = text.find(what, at + what.size())) {
      ranges.emplace_back(at, at + what.size());
    }
    return ranges.empty() ? text : replace_ranges(text, ranges, replacement);
  });
}

std::unique_ptr<const NormalizerStep> replace_pattern(Pattern pattern, std::string replacement) {
  return make_step([pattern = std::move(pattern), replacement = std::move(replacement)](std::string text) {
    std::vector<Range> ranges;
    for (const Utf8Run& run : utf8_runs(text)) {
      if (run.valid) pattern.find_all(std::string_view(text).substr(run.begin, run.end - run.begin), run.begin, ranges);
    }
    return ranges.empty() ? text : replace_ranges(text, ranges, replacement);
  });
}

std::unique_ptr<const NormalizerStep> strip(bool left, bool right) {
  return make_step([left, right](std::string text) { return strip_spaces(text, left, right); });
}

std::unique_ptr<const NormalizerStep> strip_accents() {
  return make_step([](std::string text) { return drop_chars(text, is_mark); });
}

std::unique_ptr<const NormalizerStep> visible_bytes() {
  return make_step([](std::string text) { return bytes_to_visible(text); });
}

std::unique_ptr<const NormalizerStep> precompiled(Charsmap charsmap) {
  return make_step([map = std::move(charsmap)](std::string text) { return text.empty() ? text : map_graphemes(text, map); });
}

std::unique_ptr<const NormalizerStep> bert_normalizer(BertOptions options) {
  return make_step([options](std::string text) {
    text = clean_bert(text, options);
    if (options.strip_accents) text = drop_chars(normalize(text, NormalForm::nfd), is_mark_nonspacing);
    return options.lowercase ? lowercase(text) : text;
  });
}

std::unique_ptr<const NormalizerStep> sentencepiece_normalizer(SentencePieceOptions options) { return std::make_unique<SentencePieceStep>(std::move(options)); }

std::string apply_normalizer(const Normalizer& normalizer, std::string text) {
  for (const auto& step : normalizer) text = step->apply(std::move(text));
  return text;
}

}  // namespace frugal::text
