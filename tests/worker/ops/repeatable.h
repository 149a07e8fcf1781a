// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <functional>
#include <vector>

#include "tests/worker/ops/poisoned_memory.h"

namespace temper {

// Runs `compute` again and again in poisoned memory, on one thread and, if the operator promises it, on more: the same
// bits each time.
inline void ExpectSameBits(bool any_number_of_threads, const std::function<std::vector<at::Tensor>()>& compute) {
  const PoisonedMemory poisoned;
  const int before = at::get_num_threads();
  std::vector<at::Tensor> expected;
  for (const int threads : {1, 1, 2, 3}) {
    if (any_number_of_threads) at::set_num_threads(threads);
    const std::vector<at::Tensor> actual = compute();
    if (expected.empty()) expected = actual;
    for (size_t i = 0; i < actual.size(); ++i) {
      EXPECT_FALSE(at::isnan(actual[i]).any().item<bool>()) << "result " << i;
      EXPECT_TRUE(at::equal(actual[i], expected[i])) << "result " << i << " on " << threads << " threads";
    }
  }
  at::set_num_threads(before);
}

}  // namespace temper
