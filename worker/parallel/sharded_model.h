// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <vector>

#include "worker/model/parameter.h"
#include "worker/model/trainable_model.h"
#include "worker/model/unit_weights.h"
#include "worker/parallel/buffer_pool.h"
#include "worker/parallel/flat_shard.h"
#include "worker/parallel/process_group.h"

namespace temper {

struct ShardingOptions {
  // Weights go after their forward pass and are gathered anew for the backward pass; else they stay in between, which
  // costs the memory of all of them and saves a third of the traffic.
  bool reshard_after_forward = true;
  // Gradients are reduced after every micro-batch; else once, after the last of a step (set_last_micro_batch), until
  // holds those of the whole model.
  bool reduce_each_micro_batch = true;
  // Where shards and gathered units are.
  at::Device device = at::kCPU;
};

// Cuts a model into shards (fully sharded data parallelism: Rajbhandari et al. 2020, stage 3; Zhao et al. 2023): each
// rank keeps 1 / size of every unit's weights, and of what training adds to them; a unit is whole only while it is
// computed with. docs/ARCHITECTURE.md ("Sharding") draws it.
//
// Every rank has the same model and trains on other micro-batches. One thread. Errors: CollectiveError.
class ShardedModel : public UnitWeights {
 public:
  // Takes the values of the model's weights over and becomes its unit_weights(). Both must outlive it. A model on the
  // device meta has all zeros then: StoreMaster sets what is this rank's, so that no rank ever holds all of it.
  ShardedModel(TrainableModel& model, ProcessGroup& group, const ShardingOptions& options = {});
  ~ShardedModel() override;
  ShardedModel(const ShardedModel&) = delete;
  ShardedModel& operator=(const ShardedModel&) = delete;

  // Whether the micro-batch that is about to begin is the step's last: gradients are to be reduced after it.
  void set_last_micro_batch(bool last) { last_micro_batch_ = last; }

  void Gather(int unit, int next) override;
  void Release(int unit, bool again) override;
  void BeginGradients(int unit) override;
  void EndGradients(int unit) override;
  void Keep(int unit) override;

  // What this rank has of the parameters, trained or not, for the optimizer: gradients are sums over all ranks once the
  // ends' have ended.
  const std::vector<ShardSlice*>& slices() const { return slices_; }
  // The slices as parameters.
  const std::vector<Parameter*>& parameters() const { return parameters_; }

 private:
  // Of one unit: what is trained and what is not, by dtype.
  using Shards = std::vector<std::unique_ptr<FlatShard>>;

  Shards Cut(int unit, const std::vector<Parameter*>& parameters, BufferPool* pool);
  Shards& ShardsOf(int unit) { return unit == kEnds ? ends_ : units_[unit]; }
  void FinishReduce();

  TrainableModel& model_;
  ProcessGroup& group_;
  const ShardingOptions options_;
  BufferPool pool_;
  Shards ends_;
  std::vector<Shards> units_;
  std::vector<ShardSlice*> slices_;
  std::vector<Parameter*> parameters_;
  bool last_micro_batch_ = true;
  int reducing_ = kNone;  // the unit whose gradients are being reduced
};

}  // namespace temper
