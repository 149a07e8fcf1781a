// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "worker/model/parameter.h"
#include "worker/parallel/buffer_pool.h"
#include "worker/parallel/flat_buffer.h"
#include "worker/parallel/process_group.h"

namespace temper {

// Parameters of a unit that lie one after another in one buffer, of which each rank keeps an equal part:
//
//   parameters  | a ········ | b ··· | c ··············· |pad|
//   ranks       | rank 0 ··· | rank 1 ··· | rank 2 ··· |          the same number of elements each
//
// The whole buffer has memory from the gather to the release. A parameter's `weight` is a tensor on it, its `gradient`
// one on a second buffer, of fp32, that has memory from BeginGradients to the end of the reduction. What the master has
// beyond the weights (`low`), and what optimizers need, exists in parts only.
//
// All ranks call the same in the same order. One thread. Errors: CollectiveError.
class FlatShard {
 public:
  // `parameters`: of one dtype, all trained or all not. Their values are taken over, or are zeros when they are on the
  // device meta; what they hold then is as said above. `group` and `pool` (null: none) outlive it.
  // `unit` is its name in a profile.
  FlatShard(std::string unit, const std::vector<Parameter*>& parameters, ProcessGroup& group, at::Device device,
            BufferPool* pool);

  void StartGather();   // nothing when gathered, or being so
  void FinishGather();  // starts it too, if need be
  void Release();
  // What was written into the gathered weights, fp32 ones, is their value from now on.
  void Keep();

  // Only what is trained has gradients; the others do nothing. They are zero at first, and stay until they are reduced.
  void BeginGradients();
  void StartReduce();
  // Adds the sum over the ranks, in their order, to the slices' gradients. Nothing when no reduction is under way.
  void FinishReduce();

  // Of this rank: one of each parameter, though it may be of no elements. They stay where they are.
  std::deque<ShardSlice>& slices() { return slices_; }
  // Of all parameters and the padding.
  int64_t num_elements() const { return share_ * group_.size(); }

 private:
  // Where a parameter begins, a multiple of what vector instructions like.
  struct Place {
    Parameter* parameter;
    int64_t offset;
  };

  void AddSlice(const Place& place);

  const std::string unit_;
  ProcessGroup& group_;
  const bool trainable_;
  int64_t share_ = 0;  // elements of each rank
  std::deque<ShardSlice> slices_;
  at::Tensor weight_share_, low_share_, gradient_share_;  // vectors; the latter two undefined without

  std::optional<FlatBuffer> weights_;
  PendingCollective gathering_;
  std::optional<FlatBuffer> gradients_, received_;
  PendingCollective reducing_;
  bool reduces_ = false;
};

}  // namespace temper
