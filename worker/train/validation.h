// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/data/micro_batch.h"
#include "worker/model/trainable_model.h"
#include "worker/train/gang.h"
#include "worker/train/objective.h"
#include "worker/train/stop_signal.h"

namespace temper {

struct MeanLoss {
  double loss = 0;  // over what the objective counts
  int64_t scored_tokens = 0;
  std::map<std::string, double> objective;  // its Figures
};

// The objective of the rows, without any gradient. CANCELLED when `stop` asks a rank that is alone between two rows.
absl::StatusOr<MeanLoss> Validate(const Gang& gang, TrainableModel& model, const std::vector<MicroBatch>& rows,
                                  const Objective& objective, const StopSignal& stop);

}  // namespace temper
