// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace temper::ops::cpu {

// Runs work(first) … on all threads: each takes the next task when it is done with one, so tasks may differ in size,
// and what a task computes must not depend on who runs it. `work` is made once a thread, by make_worker().
template <typename MakeWorker>
void RunTasks(int64_t tasks, const MakeWorker& make_worker) {
  std::atomic<int64_t> next = 0;
  at::parallel_for(0, std::min<int64_t>(at::get_num_threads(), tasks), 1, [&](int64_t begin, int64_t end) {
    auto work = make_worker();
    for (int64_t task = next.fetch_add(1); task < tasks; task = next.fetch_add(1)) work(task);
  });
}

}  // namespace temper::ops::cpu
