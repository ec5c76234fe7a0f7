// Splits [0, count) over the members of the team: each walks its own contiguous share in chunks (one weight stream per
// thread), then takes chunks of the shares that are left. Static halves lose up to 28 % when one core is disturbed.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include "base/team.h"

namespace frugal::kernels {

// Calls body(begin, end) on chunks that cover [0, share_ends.back()); share i ends at share_ends[i] and is member i's to begin with.
// One share: all on this thread.
template <typename Body>
void for_each_in_shares(std::span<const int64_t> share_ends, int64_t chunk, const Body& body) {
  const auto shares = static_cast<int>(share_ends.size());
  if (shares == 1) {
    if (share_ends[0] > 0) body(0, share_ends[0]);
    return;
  }
  struct alignas(64) Next {
    std::atomic<int64_t> chunk{0};
  };
  std::vector<Next> next(share_ends.size());
  for (size_t i = 1; i < next.size(); ++i) next[i].chunk.store(share_ends[i - 1], std::memory_order_relaxed);
  run_team([&](int member, int) {
    for (int i = 0; i < shares; ++i) {
      const auto share = static_cast<size_t>((member + i) % shares);
      for (;;) {
        const int64_t begin = next[share].chunk.fetch_add(chunk, std::memory_order_relaxed);
        if (begin >= share_ends[share]) break;
        body(begin, std::min(begin + chunk, share_ends[share]));
      }
    }
  });
}

// The same for equal shares. `parallel` false: one call on this thread.
template <typename Body>
void for_each_chunk(int64_t count, int64_t chunk, bool parallel, const Body& body) {
  const int shares = parallel && count > chunk ? team_size() : 1;
  std::vector<int64_t> ends;
  for (int i = 1; i <= shares; ++i) ends.push_back(count * i / shares);
  for_each_in_shares(ends, chunk, body);
}

}  // namespace frugal::kernels
