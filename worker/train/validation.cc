// SPDX-License-Identifier: Apache-2.0
#include "worker/train/validation.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "worker/train/train_step.h"

namespace temper {

absl::StatusOr<MeanLoss> Validate(TrainableModel& model, const std::vector<MicroBatch>& rows, const StopSignal& stop) {
  double sum = 0;
  MeanLoss mean;
  for (const MicroBatch& row : rows) {
    if (stop.requested()) return absl::CancelledError("stopped on request");
    const at::Tensor logprobs_S = ScoredLogprobs(model, row);
    sum -= logprobs_S.sum(at::kDouble).item<double>();
    mean.scored_tokens += logprobs_S.size(0);
  }
  mean.loss = sum / static_cast<double>(std::max<int64_t>(1, mean.scored_tokens));
  return mean;
}

}  // namespace temper
