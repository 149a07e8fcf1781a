// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "tests/worker/parallel/loopback_port.h"
#include "worker/parallel/process_group.h"

namespace temper {

// Runs `rank` as every rank of a gang, each in a thread of its own, and on the device of its own.
inline void RunGang(int size, const std::function<at::Device(int)>& device_of,
                    const std::function<void(ProcessGroup&)>& rank,
                    std::chrono::milliseconds timeout = std::chrono::seconds(60)) {
  const LoopbackPort port = ListenOnLoopback();
  std::vector<std::thread> threads;
  for (int i = 0; i < size; ++i) {
    threads.emplace_back([&, i] {
      const auto group = ProcessGroup::Connect(
          {.rank = i, .size = size, .port = port.port, .listen_fd = i == 0 ? port.listen_fd : -1, .timeout = timeout},
          device_of(i));
      ASSERT_TRUE(group.ok()) << group.status();
      rank(**group);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

inline void RunGang(int size, const std::function<void(ProcessGroup&)>& rank,
                    std::chrono::milliseconds timeout = std::chrono::seconds(60)) {
  RunGang(size, [](int) { return at::Device(at::kCPU); }, rank, timeout);
}

}  // namespace temper
