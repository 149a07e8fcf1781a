// SPDX-License-Identifier: Apache-2.0
#include "worker/parallel/sharded_model.h"

#include <ATen/record_function.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"

namespace temper {
namespace {

// In a profile.
std::string NameOf(int unit) { return unit == UnitWeights::kEnds ? "ends" : absl::StrCat("unit ", unit); }

}  // namespace

ShardedModel::ShardedModel(TrainableModel& model, ProcessGroup& group, const ShardingOptions& options)
    : model_(model), group_(group), options_(options), pool_(options.device) {
  std::set<const Parameter*> of_blocks;
  for (int unit = 0; unit < model.num_units(); ++unit) {
    const std::vector<Parameter*>& parameters = model.unit_parameters(unit);
    of_blocks.insert(parameters.begin(), parameters.end());
    units_.push_back(Cut(unit, parameters, &pool_));
  }
  std::vector<Parameter*> of_ends;
  std::ranges::copy_if(model.parameters(), std::back_inserter(of_ends),
                       [&](const Parameter* parameter) { return !of_blocks.contains(parameter); });
  // No other unit is of their size, and they are not needed in the blocks: their memory goes back.
  ends_ = Cut(kEnds, of_ends, nullptr);
  model.set_unit_weights(this);
}

ShardedModel::~ShardedModel() { model_.set_unit_weights(nullptr); }

ShardedModel::Shards ShardedModel::Cut(int unit, const std::vector<Parameter*>& parameters, BufferPool* pool) {
  std::map<std::pair<bool, at::ScalarType>, std::vector<Parameter*>> kinds;
  for (Parameter* parameter : parameters) {
    kinds[{parameter->trainable, parameter->weight.scalar_type()}].push_back(parameter);
  }
  Shards shards;
  for (const auto& [kind, of_kind] : kinds) {
    shards.push_back(std::make_unique<FlatShard>(NameOf(unit), of_kind, group_, options_.device, pool));
    for (ShardSlice& slice : shards.back()->slices()) {
      if (slice.part.weight.numel() == 0) continue;
      slices_.push_back(&slice);
      parameters_.push_back(&slice.part);
    }
  }
  return shards;
}

void ShardedModel::Gather(int unit, int next) {
  {
    RECORD_USER_SCOPE(absl::StrCat("wait for the gather of ", NameOf(unit)));
    for (const auto& shard : ShardsOf(unit)) shard->FinishGather();
  }
  if (next == kNone) return;
  for (const auto& shard : ShardsOf(next)) shard->StartGather();
}

void ShardedModel::Release(int unit, bool again) {
  if (again && !options_.reshard_after_forward) return;
  for (const auto& shard : ShardsOf(unit)) shard->Release();
}

void ShardedModel::BeginGradients(int unit) {
  for (const auto& shard : ShardsOf(unit)) shard->BeginGradients();
}

void ShardedModel::EndGradients(int unit) {
  if (!options_.reduce_each_micro_batch && !last_micro_batch_) return;
  FinishReduce();  // of the unit before, which was sent while this one was computed
  for (const auto& shard : ShardsOf(unit)) shard->StartReduce();
  reducing_ = unit;
  if (unit == kEnds) FinishReduce();
}

void ShardedModel::Keep(int unit) {
  for (const auto& shard : ShardsOf(unit)) shard->Keep();
}

void ShardedModel::FinishReduce() {
  if (reducing_ == kNone) return;
  RECORD_USER_SCOPE(absl::StrCat("wait for the reduction of ", NameOf(reducing_)));
  for (const auto& shard : ShardsOf(std::exchange(reducing_, kNone))) shard->FinishReduce();
}

}  // namespace temper
