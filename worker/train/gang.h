// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <vector>

#include "worker/data/micro_batch.h"
#include "worker/model/trainable_model.h"
#include "worker/parallel/process_group.h"
#include "worker/parallel/sharded_model.h"

namespace temper {

// The ranks that take a training's steps together. Alone, a rank has nobody to settle anything with: nothing is sent,
// and nothing copied. All ranks read the same data and call the same. One thread. CollectiveError where a rank is lost.
class Gang {
 public:
  Gang() = default;  // alone
  Gang(ProcessGroup& group, ShardedModel& model) : group_(&group), sharded_(&model) {}

  bool alone() const { return group_ == nullptr; }
  int rank() const { return alone() ? 0 : group_->rank(); }
  int size() const { return alone() ? 1 : group_->size(); }
  // Null when alone.
  ProcessGroup* group() const { return group_; }

  // What this rank's optimizer works on: its shards of the model's parameters; alone, the parameters.
  const std::vector<Parameter*>& ParametersOf(const TrainableModel& model) const;
  // Those shards; none when alone.
  std::span<ShardSlice* const> slices() const;

  // This rank's rows: rank(), rank() + size(), …. Every rank gets the same number, or some would wait for others for
  // ever: where the rows do not go round, the last of some ranks is empty.
  std::vector<MicroBatch> ShareOf(std::vector<MicroBatch> rows) const;

  // Whether the micro-batch that is about to begin is the step's last.
  void SetLastMicroBatch(bool last) const {
    if (!alone()) sharded_->set_last_micro_batch(last);
  }

  // Added up over the ranks, in their order.
  std::vector<double> Sum(std::vector<double> values) const;

  // The largest of each over the ranks.
  std::vector<double> Max(std::vector<double> values) const;

  // Whether it is so on any rank.
  bool Any(bool mine) const;

  // What rank 0 says.
  bool AskFirst(bool mine) const;

  // What a rank has to say at the end of a step's backward pass, and what all of them then go by.
  struct Step {
    double loss = 0;                           // its share; then the step's
    std::vector<double> sums;                  // StepShare's, as many on each; then the step's
    double gradient_norm = 0;                  // of its shards; then of all
    bool stop = false;                         // whether it has been told to end; then, whether any has
    bool time_is_up = false;                   // then, whether it is by rank 0's clock
    double compute_seconds = 0;                // its own, without waiting for others
    std::vector<double> rank_compute_seconds;  // then: those of all, rank by rank; alone, none
  };
  Step Settle(const Step& mine) const;

  // How long this rank has waited for others so far, in whatever they do together; 0 alone.
  double seconds_waited() const { return alone() ? 0 : group_->seconds_waited(); }
  // What this rank has sent to others so far; 0 alone.
  int64_t bytes_sent() const { return alone() ? 0 : group_->bytes_sent(); }

 private:
  ProcessGroup* group_ = nullptr;
  ShardedModel* sharded_ = nullptr;
};

}  // namespace temper
