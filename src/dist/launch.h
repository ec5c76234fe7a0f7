// Which of several processes this one is, as those that start them say it: torchrun, mpirun, Slurm's srun.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace frugal::dist {

struct Launch {
  int rank = 0, size = 1;              // of all processes
  int local_rank = 0, local_size = 1;  // of those on this machine
  std::string address = {};            // where rank 0, or its starter, has the store through which they find each other
  uint16_t port = 0;
  bool store_is_there = false;  // the starter has it (torchrun); else rank 0 opens it
  std::string prefix = {};      // of this start's keys, where one store serves several (torchrun's restarts)
};

// The value of an environment variable, or nothing.
using Environment = std::function<std::optional<std::string>(const char* name)>;
std::optional<std::string> process_environment(const char* name);

// Nothing where no starter says anything: one process. torchrun: RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT,
// TORCHELASTIC_*; Open MPI: OMPI_COMM_WORLD_*; MPICH and Intel MPI: PMI_RANK, PMI_SIZE, MPI_LOCALRANKID, MPI_LOCALNRANKS; Slurm: SLURM_PROCID,
// SLURM_NTASKS (within srun), SLURM_LOCALID. Where the starter does not say MASTER_ADDR and MASTER_PORT, they are 127.0.0.1, if all ranks are on
// this machine, and a port from the job's number. Throws Error{invalid_input} that names the variable.
std::optional<Launch> launch_of(const Environment& environment = process_environment);

}  // namespace frugal::dist
