// What this process uses, as the kernel counts it.
#pragma once

#include <cstdint>
#include <optional>

namespace frugal {

uint64_t peak_rss_bytes();  // highest resident size since the start or the last reset
double thread_seconds();    // processor time of the calling thread
void reset_peak_rss();      // no effect where the kernel does not allow it
// The stacks of all threads, each by its number and name: functions where they are exported, else addresses for addr2line. Takes SIGUSR2.
void write_stacks(int fd);
// Energy of the processor packages since boot in joules (RAPL); nothing where the machine does not tell.
std::optional<double> package_energy_joules();

}  // namespace frugal
