// Texts of a report: strings from a ledger made safe, numbers made short.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace frugal::eval {

// Valid UTF-8 without control characters, XML non-characters or marks that reorder text (each becomes U+FFFD), cut with an
// ellipsis after max_characters.
std::string clean(std::string_view text, size_t max_characters = 400);
// clean(), and & < > " ' as entities: safe in HTML and XML text and attributes.
std::string escaped(std::string_view text, size_t max_characters = 400);
size_t character_count(std::string_view utf8);

std::string format_bytes(double bytes);      // "98.4 MB", decimal units
std::string format_rate(double per_second);  // "93.1", "1,234"
std::string format_seconds(double seconds);  // "0.4 s", "12 s", "3 min 20 s"
std::string format_ratio(double ln_ratio);   // "×1.053": perplexity against the base's
// Three significant digits, no exponent between 1e-4 and 1e6.
std::string format_number(double value);

// Cells that are clean, the titles first, as Markdown that is aligned for a terminal; numeric columns to the right.
std::string markdown_table(const std::vector<std::vector<std::string>>& lines, const std::vector<bool>& numeric);

// "gptq 3/64 + wanda 0.5" for {"gptq:bits=3,group=64", "wanda:sparsity=0.5"}: ids and values, for a label in a plot.
std::string short_chain(const std::vector<std::string>& chain, const std::vector<std::string>& runtime);
// "gptq:bits=3,group=64 → wanda:sparsity=0.5"
std::string full_chain(const std::vector<std::string>& chain, const std::vector<std::string>& runtime);

}  // namespace frugal::eval
