// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <thread>

#include "worker/train/train_job.h"

namespace temper {

// Threads of this rank: what the job says, or all cores that the process may use, which the ranks of a node share.
inline int ThreadsOf(const TrainJob& job) {
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  return job.threads > 0 ? job.threads : std::max(1, cores / (job.rendezvous ? job.rendezvous->per_node : 1));
}

}  // namespace temper
