// Splits [0, count) over the members of the team: each walks its own contiguous share in chunks (one weight stream per
// thread), then takes chunks of the shares that are left. Static halves lose up to 28 % when one core is disturbed.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

#include "base/team.h"

namespace frugal::kernels {

// Calls body(begin, end) on chunks that cover [0, count). `parallel` false: one call on this thread.
template <typename Body>
void for_each_chunk(int64_t count, int64_t chunk, bool parallel, const Body& body) {
  if (count <= 0) return;
  if (!parallel || count <= chunk || team_size() == 1) {
    body(0, count);
    return;
  }
  struct alignas(64) Share {
    std::atomic<int64_t> next{0};
    int64_t end = 0;
  };
  const int shares = team_size();
  std::vector<Share> share(static_cast<size_t>(shares));
  for (int i = 0; i < shares; ++i) {
    share[static_cast<size_t>(i)].next.store(count * i / shares, std::memory_order_relaxed);
    share[static_cast<size_t>(i)].end = count * (i + 1) / shares;
  }
  run_team([&](int member, int members) {
    for (int i = 0; i < shares; ++i) {
      Share& own = share[static_cast<size_t>((member + i) % shares)];
      for (;;) {
        const int64_t begin = own.next.fetch_add(chunk, std::memory_order_relaxed);
        if (begin >= own.end) break;
        body(begin, std::min(begin + chunk, own.end));
      }
    }
  });
}

}  // namespace frugal::kernels
