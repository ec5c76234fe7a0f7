// What users type, as llama.cpp's tools take it: long names with one dash (-hf, -ub), which CLI11 takes for several short flags,
// and lists of numbers.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace frugal::cli {

// argv without the program, last first (as CLI::App::parse wants it), with "-hf" written "--hf-repo" and so on.
std::vector<std::string> long_names(int argc, char** argv);

// "1,2,4", "128-512+128", "128-1024*2": lists and ranges, as llama-bench takes them; each in 0..max. Throws
// Error{invalid_input} that begins with `what`.
std::vector<int64_t> number_list(const std::string& text, const std::string& what, int64_t max);

}  // namespace frugal::cli
