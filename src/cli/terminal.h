// stderr and signals: log lines, progress bars (only on a terminal), Ctrl-C.
#pragma once

#include <string>

namespace frugal::cli {

// Installs the log and progress sinks, the guard of mapped files and the handlers of SIGINT and SIGTERM: the first signal asks
// for a stop, the second leaves at once. `log_path`: a file that gets the lines of stderr as well, or empty. Throws Error{io}.
void set_up_terminal(const std::string& log_level, const std::string& log_path);
int exit_code_after_stop();  // 128 + the signal: 130 or 143
// Of several processes all but rank 0 say nothing but errors, "rank 2: ..."; print() is silent there too.
void speak_as_rank(int rank);
void print_note(const std::string& message);   // a line on stderr
void print_error(const std::string& message);  // "frugal: error: ..." on stderr

}  // namespace frugal::cli
