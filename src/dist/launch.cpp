#include "dist/launch.h"

#include <charconv>
#include <cstdlib>

#include "base/error.h"

namespace frugal::dist {
namespace {

constexpr int kMostRanks = 1 << 20;
constexpr int kFirstPort = 20'000, kPorts = 10'000;  // of jobs whose starter names none; below the ports that systems give out

class Reader {
 public:
  explicit Reader(const Environment& environment) : environment_(environment) {}

  bool has(const char* name) const { return environment_(name).has_value(); }
  std::string text_or(const char* name, const std::string& fallback) const { return environment_(name).value_or(fallback); }
  int number(const char* name, int low, int high) const {
    const auto text = environment_(name);
    if (!text) fail(ErrorKind::invalid_input, "environment: {} is missing beside its companions", name);
    int value = 0;
    const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
    if (error != std::errc() || end != text->data() + text->size() || value < low || value > high) {
      fail(ErrorKind::invalid_input, "environment: {}={}: must be a whole number from {} to {}", name, printable(*text), low, high);
    }
    return value;
  }
  int number_or(const char* name, int low, int high, int fallback) const { return has(name) ? number(name, low, high) : fallback; }

 private:
  const Environment& environment_;
};

struct Starter {
  const char *rank, *size, *local_rank, *local_size;
  const char* job;  // differs between jobs that run at once, is one for all ranks of a job
};
constexpr Starter kStarters[] = {
    {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", nullptr},
    {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE", "OMPI_MCA_ess_base_jobid"},
    {"PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS", "PMI_ID"},
    {"SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE", "SLURM_JOB_ID"},
};

int port_of_job(const std::string& job) {
  uint32_t hash = 2'166'136'261;  // FNV-1a
  for (const char c : job) hash = (hash ^ static_cast<unsigned char>(c)) * 16'777'619;
  return kFirstPort + static_cast<int>(hash % kPorts);
}

}  // namespace

std::optional<std::string> process_environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? std::optional<std::string>(value) : std::nullopt;
}

std::optional<Launch> launch_of(const Environment& environment) {
  const Reader reader(environment);
  const Starter* starter = nullptr;
  for (const Starter& each : kStarters) {
    // A job of Slurm has its variables in plain shells too: srun alone says which step it is.
    if (std::string_view(each.rank) == "SLURM_PROCID" && !reader.has("SLURM_STEP_ID")) continue;
    if (!starter && reader.has(each.rank)) starter = &each;
  }
  if (!starter) return {};
  Launch launch;
  launch.size = reader.number(starter->size, 1, kMostRanks);
  launch.rank = reader.number(starter->rank, 0, launch.size - 1);
  launch.local_size = reader.number_or(starter->local_size, 1, launch.size, launch.size);
  launch.local_rank = reader.number_or(starter->local_rank, 0, launch.local_size - 1, launch.rank % launch.local_size);
  const bool one_machine = launch.local_size == launch.size;
  if (!reader.has("MASTER_ADDR") && !one_machine) {
    fail(ErrorKind::invalid_input, "environment: MASTER_ADDR is missing: {} ranks on several machines must know where rank 0 is", launch.size);
  }
  launch.address = reader.text_or("MASTER_ADDR", "127.0.0.1");
  const std::string job = starter->job ? reader.text_or(starter->job, "") : "";
  if (launch.size > 1 && !reader.has("MASTER_PORT") && job.empty())
    fail(ErrorKind::invalid_input, "environment: MASTER_PORT is missing: a free port of rank 0's machine");
  launch.port = static_cast<uint16_t>(reader.number_or("MASTER_PORT", 1, 65535, port_of_job(job)));
  launch.store_is_there = reader.text_or("TORCHELASTIC_USE_AGENT_STORE", "") == "True";
  if (launch.store_is_there) launch.prefix = "frugal/attempt_" + reader.text_or("TORCHELASTIC_RESTART_COUNT", "0");
  return launch;
}

}  // namespace frugal::dist
