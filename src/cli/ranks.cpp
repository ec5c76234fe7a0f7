#include "cli/ranks.h"

#include <unistd.h>

#include <algorithm>
#include <thread>

#include "base/error.h"
#include "cli/resources.h"
#include "cli/terminal.h"

namespace frugal::cli {
namespace {

constexpr std::pair<const char*, train::Strategy> kStrategies[] = {
    {"ddp", train::Strategy::ddp}, {"zero1", train::Strategy::zero1}, {"zero2", train::Strategy::zero2}, {"zero3", train::Strategy::zero3}};

}  // namespace

Ranks::Ranks(Context& context) {
  const dist::Launch launch = dist::launch_of().value_or(dist::Launch());
  if (launch.size > 1 && context.thread_counts.front() == 0)
    use_threads(context, std::max<int64_t>(1, std::thread::hardware_concurrency() / launch.local_size));
  if (launch.size > 1) speak_as_rank(launch.rank);
  dist::GroupOptions options;
  options.on_lost = [](const std::string& what) {
    print_error(what);
    ::_exit(1);  // operations of the program may wait for that rank; what is on disk is whole at all times
  };
  group_ = dist::connect(launch, options);
}

Json Ranks::say(const Json& value) const {
  Json all = Json::array();
  for (const std::string& text : group_->all_gather(value.dump())) all.push_back(parse_json(text, "what a rank says of itself"));
  return all;
}

std::vector<std::string> strategy_names() {
  std::vector<std::string> names;
  for (const auto& [name, strategy] : kStrategies) names.emplace_back(name);
  return names;
}

train::Strategy strategy_of(const std::string& name) {
  for (const auto& [known, strategy] : kStrategies) {
    if (name == known) return strategy;
  }
  fail(ErrorKind::internal, "no strategy {}", name);
}

}  // namespace frugal::cli
