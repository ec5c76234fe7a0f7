#include "cli/ranks.h"

#include <unistd.h>

#include <algorithm>
#include <thread>

#include "cli/resources.h"
#include "cli/terminal.h"

namespace frugal::cli {

Ranks::Ranks(Context& context) {
  const auto launch = dist::launch_of();
  if (!launch || launch->size == 1) {
    group_ = std::make_unique<dist::SingleProcess>();
    return;
  }
  if (context.thread_counts.front() == 0) use_threads(context, std::max<int64_t>(1, std::thread::hardware_concurrency() / launch->local_size));
  speak_as_rank(launch->rank);
  dist::GroupOptions options;
  options.on_lost = [](const std::string& what) {
    print_error(what);
    ::_exit(1);  // operations of the program may wait for that rank; what is on disk is whole at all times
  };
  group_ = dist::connect(*launch, options);
}

}  // namespace frugal::cli
