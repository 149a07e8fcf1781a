// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "worker/data/micro_batch.h"
#include "worker/model/trainable_model.h"
#include "worker/parallel/process_group.h"
#include "worker/parallel/sharded_model.h"
#include "worker/train/objective.h"
#include "worker/train/train_step.h"

namespace temper {

// One of the processes that a probe has become.
struct ProbeRank {
  Rendezvous rendezvous;
  std::vector<pid_t> others;  // rank 0's: its children

  // The exit status of all together.
  int WaitForOthers() const;
};

// Returns in `world` processes, once in each. Before torch has started any thread.
ProbeRank StartRanks(int world);

// Changes every number that would be trained a little, to something that bf16 does not hold: element by element, so
// that it does not matter how many ranks they are on. `parameters` are a model's, or a rank's parts of them.
void NudgeWeights(const std::vector<Parameter*>& parameters);

// The model on the ranks of a probe, each of which calls the same. A world of one has neither group nor shards.
class ProbeGang {
 public:
  ProbeGang(const ProbeRank& rank, TrainableModel& model, const ShardingOptions& options);

  // Another model on the same ranks, which outlives the gang.
  void Shard(TrainableModel& other);

  int rank() const { return group_ == nullptr ? 0 : group_->rank(); }
  // What this rank's optimizer works on.
  const std::vector<Parameter*>& parameters() const;

  // Forward and backward of this rank's micro-batches; what all ranks' add up to.
  StepShare ForwardBackward(const std::vector<MicroBatch>& batches, const Objective& objective);
  // Of all ranks' gradients.
  double GradientNorm();

  // Puts gradients, or masters, of all ranks into the model's parameters. The model is of no other use then.
  void BringGradientsTogether();
  void BringWeightsTogether();

  // As parity_probe.cc says.
  std::map<std::string, at::Tensor> Figures();

 private:
  std::vector<double> Sums(const std::vector<double>& values);
  // What of() gives for each slice, by parameter, whole.
  template <typename Of>
  std::map<Parameter*, at::Tensor> Together(Of of);

  TrainableModel& model_;
  std::unique_ptr<ProcessGroup> group_;
  std::unique_ptr<ShardedModel> sharded_, other_;
};

}  // namespace temper
