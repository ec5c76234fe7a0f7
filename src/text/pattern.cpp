#include "text/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <new>

#include "base/error.h"
#include "text/unicode.h"

namespace frugal::text {
namespace {

struct MatchData {
  explicit MatchData(const pcre2_code* code) : data(pcre2_match_data_create_from_pattern(code, nullptr)) {
    if (!data) throw std::bad_alloc();
  }
  ~MatchData() { pcre2_match_data_free(data); }
  MatchData(const MatchData&) = delete;
  MatchData& operator=(const MatchData&) = delete;
  pcre2_match_data* data;
};

struct MatchContext {
  MatchContext() : context(pcre2_match_context_create(nullptr)) {
    if (!context) throw std::bad_alloc();
    pcre2_set_heap_limit(context, 64 << 10);  // KiB
  }
  ~MatchContext() { pcre2_match_context_free(context); }
  MatchContext(const MatchContext&) = delete;
  MatchContext& operator=(const MatchContext&) = delete;
  pcre2_match_context* context;
};

struct JitStack {
  // PCRE2's own 32 KiB are too few for a run of 100,000 characters in a group; the stack grows only where needed.
  JitStack() : stack(pcre2_jit_stack_create(32 << 10, 256 << 20, nullptr)) {}
  ~JitStack() { pcre2_jit_stack_free(stack); }
  JitStack(const JitStack&) = delete;
  JitStack& operator=(const JitStack&) = delete;
  pcre2_jit_stack* stack;
};

std::string error_text(int code) {
  PCRE2_UCHAR buffer[160];
  pcre2_get_error_message(code, buffer, sizeof(buffer));
  return reinterpret_cast<const char*>(buffer);
}

// Steps that one attempt may take before it draws on the budget of the whole text, and that budget.
constexpr uint32_t kFreeSteps = 512;
constexpr uint64_t kBudgetBase = 1'000'000;
constexpr uint64_t kBudgetPerByte = 64;
// Text that an attempt may look at for free. PCRE2 does not count what it skips in one step (a possessive repeat, or one that it
// makes possessive itself): without this, `a+b` on a run of n "a" takes n^2 time in n steps.
constexpr size_t kFreeBytes = 512;

}  // namespace

struct Pattern::Compiled {
  ~Compiled() { pcre2_code_free(code); }
  pcre2_code* code = nullptr;
  bool jit = false;
};

Pattern::Pattern(std::string_view regex, std::string_view name, bool trusted) : compiled_(std::make_unique<Compiled>()), source_(regex) {
  const std::string translated = translate_pattern(regex, name, trusted);
  int code = 0;
  PCRE2_SIZE offset = 0;
  const uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C | PCRE2_NO_AUTO_CAPTURE;
  compiled_->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(), options, &code, &offset, nullptr);
  if (!compiled_->code) {
    fail(ErrorKind::corrupt_file, "{}: the pattern \"{}\" is broken: {}", name, printable(regex), error_text(code));
  }
  if (trusted) compiled_->jit = pcre2_jit_compile(compiled_->code, PCRE2_JIT_COMPLETE) == 0;
}

Pattern::~Pattern() = default;
Pattern::Pattern(Pattern&&) noexcept = default;
Pattern& Pattern::operator=(Pattern&&) noexcept = default;

void Pattern::find_all(std::string_view text, size_t base, std::vector<Range>& matches, size_t most) const {
  if (text.empty()) return;
  if (compiled_->jit) {
    find_trusted(text, base, matches, most);
  } else {
    find_bounded(text, base, matches, most);
  }
}

void Pattern::find_trusted(std::string_view text, size_t base, std::vector<Range>& matches, size_t most) const {
  thread_local JitStack stack;
  const MatchData match(compiled_->code);
  const MatchContext context;
  pcre2_jit_stack_assign(context.context, nullptr, stack.stack);
  pcre2_set_match_limit(context.context, UINT32_MAX);
  for (size_t at = 0; at < text.size() && most > 0;) {
    const int rc = pcre2_match(compiled_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at, PCRE2_NO_UTF_CHECK, match.data, context.context);
    if (rc == PCRE2_ERROR_NOMATCH) return;
    if (rc < 0) fail(ErrorKind::invalid_input, "splitting {} bytes of text: {}", text.size(), error_text(rc));
    const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(match.data);
    if (ends[1] > ends[0]) {
      matches.emplace_back(base + ends[0], base + ends[1]);
      --most;
      at = ends[1];
    } else {
      at = ends[1] < text.size() ? ends[1] + decode_char(text, ends[1]).length : text.size();
    }
  }
}

// One anchored attempt per start position, so that each is counted by PCRE2 on its own. The first kFreeSteps and kFreeBytes of
// an attempt are free (they are linear in the text); more are drawn from a budget that is linear, too. An attempt sees the text
// up to `window` only; when it reaches that end (hard partial matching tells), the window grows.
void Pattern::find_bounded(std::string_view text, size_t base, std::vector<Range>& matches, size_t most) const {
  const MatchData match(compiled_->code);
  const MatchContext context;
  uint64_t budget = kBudgetBase + kBudgetPerByte * text.size();
  uint32_t limit = kFreeSteps;
  size_t window = kFreeBytes;
  const auto spend = [&](uint64_t amount) {
    if (amount > budget) {
      fail(ErrorKind::invalid_input, "the pattern \"{}\" takes too many steps on this text of {} bytes", printable(source_), text.size());
    }
    budget -= amount;
  };
  for (size_t at = 0; at < text.size() && most > 0;) {
    pcre2_set_match_limit(context.context, limit);
    size_t end = window < text.size() - at ? at + window : text.size();
    while (end < text.size() && (static_cast<uint8_t>(text[end]) & 0xC0) == 0x80) ++end;
    const uint32_t options = PCRE2_NO_UTF_CHECK | PCRE2_ANCHORED | PCRE2_NO_JIT | (end < text.size() ? PCRE2_PARTIAL_HARD : 0);
    const int rc = pcre2_match(compiled_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), end, at, options, match.data, context.context);
    if (rc == PCRE2_ERROR_MATCHLIMIT || rc == PCRE2_ERROR_DEPTHLIMIT) {
      limit *= 8;
      spend(limit);
      continue;
    }
    if (rc == PCRE2_ERROR_PARTIAL) {
      window *= 8;
      spend(std::min(window, text.size() - at));
      continue;
    }
    limit = kFreeSteps;
    window = kFreeBytes;
    if (rc < 0 && rc != PCRE2_ERROR_NOMATCH) {
      fail(ErrorKind::invalid_input, "splitting {} bytes of text: {}", text.size(), error_text(rc));
    }
    const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(match.data);
    if (rc >= 0 && ends[1] > ends[0]) {
      matches.emplace_back(base + ends[0], base + ends[1]);
      --most;
      at = ends[1];
    } else {
      at += decode_char(text, at).length;
    }
  }
}

}  // namespace frugal::text
