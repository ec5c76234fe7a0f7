// The one compute team of the process: OpenMP on the libgomp that torch loads (a second team of our own made work that
// alternates with at::mm 14 times slower, measured). Kernels and loops run on it through here. With FRUGAL_STD_THREADS
// (the TSan build: libgomp is not instrumented) it runs on std::thread instead.
// Only one thread may enter parallel code at a time: the engine's step thread or the method that is running.
#pragma once

#include <cstdint>
#include <functional>

namespace frugal {

void set_team_size(int threads);  // >= 1
int team_size();

// Calls body(begin, end) on disjoint ranges that cover [0, count), each at least `grain` long where possible. The first
// exception of any body is rethrown here. Nested calls run serially.
void parallel_for(int64_t count, int64_t grain, const std::function<void(int64_t begin, int64_t end)>& body);

// Calls body(member, members) once on each member of the team; for kernels that split their own work.
void run_team(const std::function<void(int member, int members)>& body);

// Runs `body` on this thread while the rest of the team waits for work inside one parallel region: what `body` calls of the
// two above is then handed over and awaited in a fraction of a microsecond, where a fork and join of OpenMP costs several. For a
// step of many small pieces. A member that waits spins for 50 us, yields for 2 ms, then blocks. OpenMP and BLAS calls of `body` itself run
// serially: not for work that leans on them. Nested calls just run `body`.
void hold_team(const std::function<void()>& body);

}  // namespace frugal
