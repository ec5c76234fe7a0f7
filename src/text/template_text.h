// Python's view of a text, over UTF-8: positions are code points, case and classes are Unicode's (utf8proc).
// Differences: case mapping is one to one except for the sharp s, and a final sigma is not special.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "text/template_value.h"

namespace frugal::text::jinja {

bool valid_utf8(std::string_view text);
size_t next_code_point(std::string_view text, size_t begin);    // offset of the code point after the one at `begin`
size_t previous_code_point(std::string_view text, size_t end);  // offset of the code point that ends at `end` > 0
char32_t code_point_at(std::string_view text, size_t begin);
size_t count_code_points(std::string_view text);
size_t offset_of_code_point(std::string_view text, size_t index);  // text.size() when beyond the end
void append_utf8(std::string& out, char32_t code_point);

// Position or npos. Linear time whatever the two texts are (two-way search), unlike std::string::find.
size_t find_bytes(std::string_view text, std::string_view what, size_t from = 0);

bool is_space(char32_t c);
bool is_alpha(char32_t c);
bool is_decimal(char32_t c);
bool is_numeric(char32_t c);
bool is_upper(char32_t c);
bool is_lower(char32_t c);
bool is_printable(char32_t c);
bool is_word(char32_t c);  // \w

enum class Side { left, right, both };
// Python's strip: white space when `chars` is null, else any of its code points.
Text strip(const Text& text, const std::string* chars, Side side);

Text upper(const Text& text);
Text lower(const Text& text);
Text capitalize(const Text& text);  // first upper, rest lower
Text title(const Text& text);       // str.title: a word begins after anything that is not a letter
Text swap_case(const Text& text);

Text replace(Render& r, const Text& text, const Text& from, const Text& to, int64_t count);  // count < 0: all
std::vector<Text> split(Render& r, const Text& text, const std::string* separator, int64_t limit);
std::vector<Text> split_right(Render& r, const Text& text, const std::string* separator, int64_t limit);
std::vector<Text> split_lines(Render& r, const Text& text, bool keep_ends);
Text repeat(Render& r, const Text& text, int64_t count);
// Fill characters on the left and the right until `width` code points; `center` splits as Python does.
Text justify(Render& r, const Text& text, int64_t width, const Text& fill, Side text_side);
Text zero_fill(Render& r, const Text& text, int64_t width);

void append_string_repr(const Text& text, Text& out);

}  // namespace frugal::text::jinja
