// SPDX-License-Identifier: Apache-2.0
#include "worker/train/validation.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "worker/train/train_step.h"

namespace temper {

absl::StatusOr<MeanLoss> Validate(const Gang& gang, TrainableModel& model, const std::vector<MicroBatch>& rows,
                                  const StopSignal& stop) {
  double sum = 0;
  int64_t scored = 0;
  for (size_t first = 0; first < rows.size(); first += gang.size()) {
    if (gang.alone() && stop.requested()) return absl::CancelledError("stopped on request");
    const size_t mine = first + gang.rank();
    const at::Tensor logprobs_S = ScoredLogprobs(model, mine < rows.size() ? rows[mine] : MicroBatch{});
    sum -= logprobs_S.sum(at::kDouble).item<double>();
    scored += logprobs_S.size(0);
  }
  const std::vector<double> sums = gang.Sum({sum, static_cast<double>(scored)});
  return MeanLoss{sums[0] / std::max(1.0, sums[1]), static_cast<int64_t>(sums[1])};
}

}  // namespace temper
