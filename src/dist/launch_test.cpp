#include "dist/launch.h"

#include <gtest/gtest.h>

#include <map>

#include "base/error.h"

namespace frugal::dist {
namespace {

std::optional<Launch> launch(const std::map<std::string, std::string>& variables) {
  return launch_of([&](const char* name) -> std::optional<std::string> {
    const auto found = variables.find(name);
    return found == variables.end() ? std::nullopt : std::optional(found->second);
  });
}

std::string refusal(const std::map<std::string, std::string>& variables) {
  try {
    launch(variables);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::invalid_input);
    return error.what();
  }
  return "";
}

TEST(Launch, OneProcessWhereNobodySaysAnything) {
  EXPECT_FALSE(launch({}));
  EXPECT_FALSE(launch({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "4"}})) << "a shell within a job is no step of it";
}

TEST(Launch, TorchrunSaysAll) {
  const auto l = launch({{"RANK", "5"},
                         {"WORLD_SIZE", "8"},
                         {"LOCAL_RANK", "1"},
                         {"LOCAL_WORLD_SIZE", "4"},
                         {"MASTER_ADDR", "node7"},
                         {"MASTER_PORT", "29501"},
                         {"TORCHELASTIC_USE_AGENT_STORE", "True"},
                         {"TORCHELASTIC_RESTART_COUNT", "2"}});
  ASSERT_TRUE(l);
  EXPECT_EQ(l->rank, 5);
  EXPECT_EQ(l->size, 8);
  EXPECT_EQ(l->local_rank, 1);
  EXPECT_EQ(l->local_size, 4);
  EXPECT_EQ(l->address, "node7");
  EXPECT_EQ(l->port, 29501);
  EXPECT_TRUE(l->store_is_there);
  EXPECT_EQ(l->prefix, "frugal/attempt_2");
}

TEST(Launch, OpenMpiSaysNoAddress) {
  std::map<std::string, std::string> variables = {{"OMPI_COMM_WORLD_RANK", "1"},
                                                  {"OMPI_COMM_WORLD_SIZE", "2"},
                                                  {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                                                  {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"},
                                                  {"OMPI_MCA_ess_base_jobid", "3817537537"}};
  const auto l = launch(variables);
  ASSERT_TRUE(l);
  EXPECT_EQ(l->address, "127.0.0.1");
  EXPECT_FALSE(l->store_is_there);
  EXPECT_GE(l->port, 20000);
  EXPECT_EQ(launch(variables)->port, l->port) << "all ranks of a job agree";
  variables["OMPI_MCA_ess_base_jobid"] = "3817537538";
  EXPECT_NE(launch(variables)->port, l->port);
  variables["OMPI_COMM_WORLD_SIZE"] = "4";
  EXPECT_NE(refusal(variables).find("MASTER_ADDR"), std::string::npos) << "the other two are elsewhere";
}

TEST(Launch, SlurmAndMpich) {
  const auto slurm = launch({{"SLURM_STEP_ID", "0"}, {"SLURM_PROCID", "3"}, {"SLURM_NTASKS", "4"}, {"SLURM_LOCALID", "3"}, {"SLURM_JOB_ID", "77"}});
  ASSERT_TRUE(slurm);
  EXPECT_EQ(slurm->rank, 3);
  EXPECT_EQ(slurm->size, 4);
  const auto mpich = launch({{"PMI_RANK", "0"}, {"PMI_SIZE", "2"}, {"MASTER_PORT", "5000"}});
  ASSERT_TRUE(mpich);
  EXPECT_EQ(mpich->port, 5000);
}

TEST(Launch, WrongVariablesAreNamed) {
  EXPECT_NE(refusal({{"RANK", "0"}}).find("WORLD_SIZE"), std::string::npos);
  EXPECT_NE(refusal({{"RANK", "2"}, {"WORLD_SIZE", "2"}, {"MASTER_PORT", "1"}}).find("RANK=2"), std::string::npos);
  EXPECT_NE(refusal({{"RANK", "1x"}, {"WORLD_SIZE", "2"}, {"MASTER_PORT", "1"}}).find("RANK=1x"), std::string::npos);
  EXPECT_NE(refusal({{"RANK", "0"}, {"WORLD_SIZE", "2"}}).find("MASTER_PORT"), std::string::npos);
  EXPECT_NE(refusal({{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"MASTER_PORT", "70000"}}).find("MASTER_PORT=70000"), std::string::npos);
}

}  // namespace
}  // namespace frugal::dist
