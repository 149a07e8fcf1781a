// SPDX-License-Identifier: Apache-2.0
#include "worker/train/validation.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "worker/train/train_step.h"

namespace temper {

absl::StatusOr<MeanLoss> Validate(const Gang& gang, TrainableModel& model, const std::vector<MicroBatch>& rows,
                                  const Objective& objective, const StopSignal& stop) {
  StepShare mine = {.sums = std::vector<double>(objective.num_sums()), .maxima = NoMaxima(objective.num_maxima())};
  double count = 0, scored = 0;
  for (size_t first = 0; first < rows.size(); first += gang.size()) {
    if (gang.alone() && stop.requested()) return absl::CancelledError("stopped on request");
    const size_t index = first + gang.rank();
    const MicroBatch& row = index < rows.size() ? rows[index] : MicroBatch{};
    mine += Evaluate(model, row, objective, /*normalizer=*/1);
    count += objective.Count(row);
    scored += static_cast<double>(std::count(row.loss_mask_T.begin(), row.loss_mask_T.end(), 1));
  }
  std::vector<double> values = {mine.loss, count, scored};
  values.insert(values.end(), mine.sums.begin(), mine.sums.end());
  const std::vector<double> sums = gang.Sum(values);
  std::map<std::string, double> figures = objective.Figures({sums.begin() + 3, sums.end()});
  figures.merge(objective.Extremes(gang.Max(std::move(mine.maxima))));
  return MeanLoss{.loss = sums[0] / std::max(1.0, sums[1]),
                  .scored_tokens = static_cast<int64_t>(sums[2]),
                  .objective = std::move(figures)};
}

}  // namespace temper
