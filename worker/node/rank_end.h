// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "temper/v1/worker_service.pb.h"
#include "worker/node/rank_process.h"

namespace temper {

// What is known about a rank that is gone and did not say why.
struct RankDeath {
  RankExit exit;
  // The kernel killed a process of this node's cgroup for want of memory while the rank ran.
  bool oom_killed = false;
};

// The rank's end in its place: exit status or signal, what it means, and the last lines of stderr. The cause is
// OUT_OF_MEMORY where that can be told, else RANK_LOST.
v1::RankEnd ExplainDeath(const RankDeath& death);

}  // namespace temper
