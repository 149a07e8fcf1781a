// SPDX-License-Identifier: Apache-2.0
#include "worker/train/gang.h"

#include <cmath>
#include <utility>

#include "worker/train/objective.h"

namespace temper {

const std::vector<Parameter*>& Gang::ParametersOf(const TrainableModel& model) const {
  return alone() ? model.parameters() : sharded_->parameters();
}

std::span<ShardSlice* const> Gang::slices() const {
  if (alone()) return {};
  return sharded_->slices();
}

std::vector<MicroBatch> Gang::ShareOf(std::vector<MicroBatch> rows) const {
  if (alone()) return rows;
  std::vector<MicroBatch> share;
  for (size_t first = 0; first < rows.size(); first += size()) {
    const size_t mine = first + rank();
    share.push_back(mine < rows.size() ? std::move(rows[mine]) : MicroBatch{});
  }
  return share;
}

std::vector<double> Gang::Sum(std::vector<double> values) const {
  if (alone()) return values;
  std::vector<double> sums(values.size(), 0.0);
  for (const std::vector<double>& of_rank : group_->AllGatherValues(values)) {
    for (size_t i = 0; i < sums.size(); ++i) sums[i] += of_rank[i];
  }
  return sums;
}

std::vector<double> Gang::Max(std::vector<double> values) const {
  if (alone() || values.empty()) return values;
  for (const std::vector<double>& of_rank : group_->AllGatherValues(values)) KeepMaxima(of_rank, values);
  return values;
}

bool Gang::Any(bool mine) const { return Sum({mine ? 1.0 : 0.0})[0] > 0; }

bool Gang::AskFirst(bool mine) const {
  if (alone()) return mine;
  return group_->AllGatherValues(std::vector<double>{mine ? 1.0 : 0.0})[0][0] > 0;
}

Gang::Step Gang::Settle(const Step& mine) const {
  if (alone()) return mine;
  const auto flag = [](bool raised) { return raised ? 1.0 : 0.0; };
  std::vector<double> values = {mine.loss, mine.gradient_norm * mine.gradient_norm, flag(mine.stop),
                                flag(mine.time_is_up), mine.compute_seconds};
  const size_t first_sum = values.size();
  values.insert(values.end(), mine.sums.begin(), mine.sums.end());
  const std::vector<std::vector<double>> by_rank = group_->AllGatherValues(values);
  Step all = {.sums = std::vector<double>(mine.sums.size()), .time_is_up = by_rank[0][3] > 0};
  double squares = 0;
  for (const std::vector<double>& of_rank : by_rank) {
    all.loss += of_rank[0];
    squares += of_rank[1];
    all.stop = all.stop || of_rank[2] > 0;
    all.rank_compute_seconds.push_back(of_rank[4]);
    for (size_t i = 0; i < all.sums.size(); ++i) all.sums[i] += of_rank[first_sum + i];
  }
  all.gradient_norm = std::sqrt(squares);
  return all;
}

}  // namespace temper
