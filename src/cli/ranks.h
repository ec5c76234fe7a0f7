// Several processes that train together, as torchrun, mpirun or srun started them: this one's place among them, and what each says.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cli/context.h"
#include "dist/process_group.h"
#include "train/data_parallel.h"

namespace frugal::cli {

class Ranks {
 public:
  // Connects with the others, if there are any. Ranks of one machine share its cores, unless --threads says otherwise; all but rank 0 say nothing but
  // their errors, with their number.
  explicit Ranks(Context& context);

  dist::ProcessGroup& group() const { return *group_; }
  int64_t size() const { return group_->size(); }
  bool leads() const { return group_->leads(); }
  bool are_several() const { return size() > 1; }
  Json say(const Json& value) const;  // what each rank says, by rank
  // Waits for all.
  void meet() const { group_->all_gather(""); }

 private:
  std::unique_ptr<dist::ProcessGroup> group_;
};

// How several processes share a run (train/data_parallel.h).
std::vector<std::string> strategy_names();
train::Strategy strategy_of(const std::string& name);

}  // namespace frugal::cli
