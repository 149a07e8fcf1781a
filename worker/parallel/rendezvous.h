// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace temper {

// Where the ranks of a gang find each other, and as whom.
struct Rendezvous {
  int rank = 0;
  int size = 1;
  int per_node = 1;                // how many of them share this one's cores
  std::string host = "127.0.0.1";  // of rank 0, which opens a key-value store there
  uint16_t port = 0;
  // Rank 0's, if others bound the port before: a listening socket, which the store takes over. −1: none.
  int listen_fd = -1;
  std::string address = "127.0.0.1";  // of this rank: where the others reach it
  // The longest that a rank waits for another, here and in every collective.
  std::chrono::milliseconds timeout = std::chrono::minutes(10);
};

}  // namespace temper
