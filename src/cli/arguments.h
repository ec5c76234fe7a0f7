// Users of llama.cpp type long names with one dash (-hf, -ctk, -mli); CLI11 takes those for several short flags.
#pragma once

#include <string>
#include <vector>

namespace frugal::cli {

// argv without the program, last first (as CLI::App::parse wants it), with "-hf" written "--hf-repo" and so on.
std::vector<std::string> long_names(int argc, char** argv);

}  // namespace frugal::cli
