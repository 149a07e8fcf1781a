// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/cpu/tasks.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

namespace temper::ops::cpu {
namespace {

// A build without OpenMP computes the same, on one thread.
TEST(TasksTest, RunTasks_SeveralThreads_RunAtTheSameTime) {
  const int before = at::get_num_threads();
  at::set_num_threads(2);
  std::atomic<int> arrived = 0, met = 0;
  RunTasks(2, [&] {
    return [&](int64_t) {
      ++arrived;
      const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
      while (arrived < 2 && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
      if (arrived == 2) ++met;
    };
  });
  at::set_num_threads(before);
  EXPECT_EQ(met, 2);
}

}  // namespace
}  // namespace temper::ops::cpu
