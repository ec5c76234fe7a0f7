// A template and what it is rendered with: the input is the template up to a NUL byte, then JSON for the messages.
// Nothing but Error may leave, within small limits.
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "text/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t nul = input.find('\0');
  try {
    const frugal::text::ChatTemplate chat(input.substr(0, nul), "fuzz");
    const std::string_view json = nul == std::string_view::npos ? "[]" : input.substr(nul + 1);
    frugal::text::RenderOptions options;
    options.limits = {.max_steps = 20'000, .max_output_bytes = 1 << 16, .max_live_bytes = 1 << 22};
    options.bos_token = "<s>";
    // The variables that tests/oracle/make_template_cases.py draws templates for.
    options.extra = {{"s", "Hello, a World"},
                     {"n", 5},
                     {"x", 2},
                     {"flag", false},
                     {"items", {3, 1, 2}},
                     {"d", {{"k", 1}, {"b", "two"}, {"A", nullptr}}},
                     {"nested", {{"a", {{"b", "deep"}}}, {"list", {1, "\u00e9", nullptr, 2.5}}}},
                     {"m", {{"role", "user"}, {"content", " data \n"}}}};
    chat.render(frugal::parse_json(json, "fuzz"), options);
  } catch (const frugal::Error&) {}
  return 0;
}
