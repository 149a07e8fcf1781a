// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/training_client.h"

namespace temper {

struct FollowOptions {
  // The newest sequence that the caller has; 0: from the beginning.
  int64_t after_sequence = 0;
  // How long to go on trying once a connection that worked is lost. A first connection is not retried beyond what the
  // channel does.
  absl::Duration patience = absl::Minutes(10);
};

// Calls `sink` with every event of a job exactly once and in order, until the job has ended or `sink` returns false.
// A stream that breaks (the server restarts, the network is cut) or that the server ends because we are too slow is
// opened again after the last sequence seen; `reconnecting` is told why, once per interruption.
//
// Errors: the server's, or DATA_LOSS when the server's sequence has a gap or goes back, which a healthy one never does.
absl::Status FollowJob(const TrainingClient& client, std::string_view job, const FollowOptions& options,
                       absl::FunctionRef<bool(const v1::JobEvent&)> sink,
                       absl::FunctionRef<void(const absl::Status&)> reconnecting);

// Whether `state` is one that a job never leaves.
bool IsEnd(v1::JobState state);

}  // namespace temper
