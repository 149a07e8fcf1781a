// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/data/micro_batch.h"
#include "worker/model/trainable_model.h"
#include "worker/train/gang.h"
#include "worker/train/stop_signal.h"

namespace temper {

struct MeanLoss {
  double loss = 0;  // over the scored tokens
  int64_t scored_tokens = 0;
};

// Cross-entropy of the rows, without any gradient. CANCELLED when `stop` asks a rank that is alone between two rows.
absl::StatusOr<MeanLoss> Validate(const Gang& gang, TrainableModel& model, const std::vector<MicroBatch>& rows,
                                  const StopSignal& stop);

}  // namespace temper
