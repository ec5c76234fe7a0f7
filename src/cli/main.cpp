#include <c10/util/Exception.h>

#include <CLI/CLI.hpp>

#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/options.h"
#include "base/progress.h"
#include "cli/arguments.h"
#include "cli/context.h"
#include "cli/resources.h"
#include "cli/step_table.h"
#include "cli/terminal.h"
#include "models/loader.h"

namespace frugal::cli {
namespace {

// Exit code: 0 ok, 1 the run failed (a broken or unsupported file, input or output, memory), 2 what was asked for makes no sense,
// 130 Ctrl-C, 143 SIGTERM.
int run(int argc, char** argv) {
  const chain::StepTable steps = joined_step_table();
  const models::Loader loader;
  Context context(steps, loader);
  context.program = std::filesystem::read_symlink("/proc/self/exe").string();
  CLI::App app{"frugal: makes large language models cheaper and measures what that costs", "frugal"};
  app.set_version_flag("--version", std::string("frugal ") + kVersion);
  app.require_subcommand(1);
  for (const auto add :
       {add_compress, add_eval, add_sweep, add_report,  add_generate, add_chat, add_serve, add_bench,   add_inspect, add_tokenize, add_tokenizer,
        add_train,    add_grow, add_tune,  add_distill, add_plan,     add_runs, add_merge, add_convert, add_methods, add_claims}) {
    add(app, context);
  }
  try {
    app.parse(long_names(argc, argv));
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error);
    if (code != 0 && argc > 1 && argv[1][0] != '-') {
      std::vector<std::string> verbs;
      for (const CLI::App* verb : app.get_subcommands({})) verbs.push_back(verb->get_name());
      if (std::find(verbs.begin(), verbs.end(), argv[1]) == verbs.end())
        print_error(fmt::format("no verb \"{}\"{}", printable(argv[1]), did_you_mean(argv[1], verbs)));
    }
    return code == 0 ? 0 : 2;
  }
  set_up_terminal(context.log_level, context.log_file);
  context.thread_counts = number_list(context.threads_text, "--threads", 4096);
  if (context.thread_counts.size() > 1 && !app.got_subcommand("bench")) fail(ErrorKind::invalid_input, "--threads takes one number here; bench takes a list");
  use_threads(context, context.thread_counts.front());
  context.run();
  require_whole_mappings();
  return 0;
}

int reported_run(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const Interrupted&) {
    print_error("interrupted");
    return exit_code_after_stop();
  } catch (const Error& error) {
    print_error(error.what());
    return error.kind() == ErrorKind::invalid_input ? 2 : 1;
  } catch (const std::filesystem::filesystem_error& error) {
    print_error(error.what());
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const c10::Error& error) {
    print_error(fmt::format("internal error: {}", error.what_without_backtrace()));
  } catch (const std::exception& error) {
    print_error(fmt::format("internal error: {}", error.what()));
  }
  return 1;
}

int guarded_run(int argc, char** argv) {
  try {
    return reported_run(argc, argv);
  } catch (const std::bad_alloc&) {  // there may be none for a message either
    constexpr std::string_view kMessage = "frugal: error: out of memory\n";
    (void)!::write(STDERR_FILENO, kMessage.data(), kMessage.size());
    std::_Exit(1);  // libtorch's own destructors take memory
  }
}

}  // namespace
}  // namespace frugal::cli

// libgomp spins for milliseconds at each join, which on a machine with other work costs whole time slices; 2,000 turns are about
// 30 us. It reads the variable when it is loaded, and libc forgets what is set before its own start: hence a second exec, from
// .preinit_array, before the libraries start. Where it fails, the program runs on as it is.
namespace {
void bound_spinning(int, char** arguments, char** environment) {
  static char setting[] = "GOMP_SPINCOUNT=2000";
  static char* copy[4096];
  size_t count = 0;
  for (; environment[count]; ++count) {
    const std::string_view entry(environment[count]);
    if (count + 2 >= std::size(copy) || entry.starts_with("GOMP_SPINCOUNT=") || entry.starts_with("OMP_WAIT_POLICY=")) return;
    copy[count] = environment[count];
  }
  copy[count] = setting;
  ::execve("/proc/self/exe", arguments, copy);
}
[[gnu::section(".preinit_array"), gnu::used]] void (*const bound_spinning_entry)(int, char**, char**) = bound_spinning;
}  // namespace

int main(int argc, char** argv) { return frugal::cli::guarded_run(argc, argv); }
