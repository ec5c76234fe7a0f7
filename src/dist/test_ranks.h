// Ranks that are threads of a test, each with a group of its own: Gloo does not know the difference.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <future>

#include "dist/process_group.h"

namespace frugal::dist {

inline uint16_t free_port() {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  EXPECT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
  ::close(fd);
  return ntohs(address.sin_port);
}

inline GroupOptions quick(std::function<void(const std::string&)> on_lost = [](const std::string& what) { ADD_FAILURE() << what; }) {
  return {.connect_timeout = std::chrono::seconds(20), .lost_after = std::chrono::seconds(20), .on_lost = std::move(on_lost)};
}

// body(group) on each of `size` ranks.
inline void on_ranks(int size, const std::function<void(ProcessGroup&)>& body) {
  const uint16_t port = free_port();
  std::vector<std::future<void>> ranks;
  for (int rank = 0; rank < size; ++rank) {
    ranks.push_back(std::async(std::launch::async, [&, rank] {
      const auto group = connect({.rank = rank, .size = size, .local_rank = rank, .local_size = size, .address = "127.0.0.1", .port = port}, quick());
      body(*group);
      group->leave();
    }));
  }
  for (auto& rank : ranks) rank.get();
}

}  // namespace frugal::dist
