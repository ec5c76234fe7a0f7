// stderr and signals: log lines, progress bars (only on a terminal), Ctrl-C.
#pragma once

#include <string>

namespace frugal::cli {

// Installs the log and progress sinks and the SIGINT handler: the first Ctrl-C asks for a stop, the second leaves at once
// with status 130.
void set_up_terminal(const std::string& log_level);
void print_note(const std::string& message);    // a line on stderr
void print_error(const std::string& message);   // "frugal: error: ..." on stderr

}  // namespace frugal::cli
