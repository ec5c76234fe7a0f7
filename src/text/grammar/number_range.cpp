// Numbers between two bounds, digit by digit: as long as the digits so far equal those of a bound, the next digit must not pass it.
#include <algorithm>
#include <array>

#include "base/error.h"
#include "text/grammar/json_nodes.h"

namespace frugal::text::grammar {

std::optional<DecimalBound> decimal_bound(const Json& number, bool exclusive) {
  constexpr int kMaxShift = 400;
  std::string text = number.is_number_float() ? fmt::format("{}", number.get<double>()) : number.dump();
  DecimalBound bound{.exclusive = exclusive};
  if (text[0] == '-') {
    bound.negative = true;
    text.erase(0, 1);
  }
  int exponent = 0;
  if (const size_t e = text.find('e'); e != std::string::npos) {
    const bool minus = text[e + 1] == '-';
    for (size_t i = e + 1; i < text.size(); ++i) {
      if (text[i] >= '0' && text[i] <= '9') exponent = exponent * 10 + (text[i] - '0');
    }
    if (minus) exponent = -exponent;
    text.resize(e);
  }
  if (exponent > kMaxShift || exponent < -kMaxShift) return std::nullopt;
  const size_t point = std::min(text.find('.'), text.size());
  bound.whole = text.substr(0, point);
  bound.fraction = point < text.size() ? text.substr(point + 1) : "";
  for (; exponent > 0; --exponent) {
    bound.whole += bound.fraction.empty() ? '0' : bound.fraction[0];
    if (!bound.fraction.empty()) bound.fraction.erase(0, 1);
  }
  for (; exponent < 0; ++exponent) {
    bound.fraction.insert(0, 1, bound.whole.empty() ? '0' : bound.whole.back());
    if (!bound.whole.empty()) bound.whole.pop_back();
  }
  bound.whole.erase(0, std::min(bound.whole.find_first_not_of('0'), bound.whole.size()));
  if (bound.whole.empty()) bound.whole = "0";
  bound.fraction.erase(bound.fraction.find_last_not_of('0') + 1);
  if (bound.whole == "0" && bound.fraction.empty()) bound.negative = false;
  return bound;
}

int compare(const DecimalBound& a, const DecimalBound& b) {
  if (a.negative != b.negative) return a.negative ? -1 : 1;
  const auto sign = [](auto x) { return x < 0 ? -1 : x > 0 ? 1 : 0; };
  int magnitude = a.whole.size() != b.whole.size() ? (a.whole.size() < b.whole.size() ? -1 : 1) : sign(a.whole.compare(b.whole));
  if (magnitude == 0) magnitude = sign(a.fraction.compare(b.fraction));
  return a.negative ? -magnitude : magnitude;
}

namespace {

// Numbers with `digits` digits before the point and at most `decimals` behind it, between two bounds that are not negative.
class RangeNodes {
 public:
  RangeNodes(Builder& builder, const std::optional<DecimalBound>& min, const std::optional<DecimalBound>& max, uint32_t digits, uint32_t decimals)
      : builder_(builder), min_(min), max_(max), digits_(digits), decimals_(decimals), known_((digits + decimals + 1) * 4) {}

  NodeId run() {
    if (min_ && min_->whole.size() > digits_) return builder_.never();
    if (max_ && max_->whole.size() < digits_) return builder_.never();
    return from(0, min_ && min_->whole.size() == digits_, max_ && max_->whole.size() == digits_);
  }

 private:
  static char digit_of(const DecimalBound& bound, uint32_t at) {
    if (at < bound.whole.size()) return bound.whole[at];
    const size_t decimal = at - bound.whole.size();
    return decimal < bound.fraction.size() ? bound.fraction[decimal] : '0';
  }
  static bool is_through(const DecimalBound& bound, uint32_t at) { return at >= bound.whole.size() + bound.fraction.size(); }

  // What follows after `at` digits, which equal those of min (`low`) or of max (`high`).
  NodeId from(uint32_t at, bool low, bool high) {
    std::optional<NodeId>& known = known_[at * 4 + low * 2u + high];
    if (known) return *known;
    std::vector<NodeId> parts;
    if (at >= digits_) {
      const bool above_min = !low || (is_through(*min_, at) && !min_->exclusive);
      const bool below_max = !high || !max_->exclusive || !is_through(*max_, at);
      if (above_min && below_max) parts.push_back(builder_.empty());
    }
    if (at < digits_ + decimals_) {
      const NodeId point = at == digits_ ? builder_.byte('.') : builder_.empty();
      parts.push_back(builder_.sequence(point, digit(at, low, high)));
    }
    known = builder_.alternatives(parts);
    return *known;
  }

  NodeId digit(uint32_t at, bool low, bool high) {
    const char first = low ? digit_of(*min_, at) : at == 0 && digits_ > 1 ? '1' : '0', last = high ? digit_of(*max_, at) : '9';
    std::vector<NodeId> parts;
    ByteSet between;
    for (char c = first; c <= last; ++c) {
      const bool still_low = low && c == first, still_high = high && c == last;
      if (still_low || still_high) {
        parts.push_back(builder_.sequence(builder_.byte(c), from(at + 1, still_low, still_high)));
      } else {
        between.set(static_cast<uint8_t>(c));
      }
    }
    if (between.any()) parts.push_back(builder_.sequence(builder_.bytes(between), from(at + 1, false, false)));
    return builder_.alternatives(parts);
  }

  Builder& builder_;
  const std::optional<DecimalBound>&min_, &max_;
  uint32_t digits_, decimals_;
  std::vector<std::optional<NodeId>> known_;
};

}  // namespace

NodeId JsonNodes::magnitude(const std::optional<DecimalBound>& min, const std::optional<DecimalBound>& max, bool integer) {
  std::vector<NodeId> parts;
  for (uint32_t digits = 1; digits <= kMaxDigits; ++digits) {
    const uint32_t decimals = integer || digits >= kMaxExactDigits ? 0 : kMaxExactDigits - digits;
    parts.push_back(RangeNodes(builder_, min, max, digits, decimals).run());
  }
  return builder_.alternatives(parts);
}

NodeId JsonNodes::number(const NumberRange& range) {
  if (!range.min && !range.max) return any_number(range.integer);
  const GroupScope scope(builder_);
  std::optional<DecimalBound> min = range.min, max = range.max;
  if (min && max) {
    const int order = compare(*min, *max);
    if (order > 0 || (order == 0 && (min->exclusive || max->exclusive))) return builder_.never();
  }
  const DecimalBound zero;
  std::vector<NodeId> parts;
  if (!max || !max->negative) {
    const std::optional<DecimalBound> from = min && !min->negative ? min : std::nullopt;
    parts.push_back(magnitude(from, max, range.integer));
  }
  if (!min || min->negative) {
    std::optional<DecimalBound> from = max && max->negative ? max : std::optional(DecimalBound{.exclusive = true}), to = min;
    from->negative = false;
    if (to) to->negative = false;
    parts.push_back(builder_.sequence(builder_.byte('-'), magnitude(from, to, range.integer)));
  }
  return builder_.alternatives(parts);
}

}  // namespace frugal::text::grammar
