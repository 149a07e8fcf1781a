// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include "worker/model/parameter.h"
#include "worker/parallel/process_group.h"

namespace temper {

// A part's master on its way from the ranks that share it to one of them.
class PendingMaster {
 public:
  // fp32, of the view's shape, to be read before that changes; undefined where it does not go. Throws CollectiveError.
  at::Tensor Wait();

 private:
  friend PendingMaster StartGatherMaster(const WeightView& view, ProcessGroup* ranks, int to);
  at::Tensor value_;
  PendingCollective pending_;
};

// The master of a part that ranks share: on rank `to`, or on all of them (ProcessGroup::kAll). Every rank calls it;
// none holds more than this part. Null: this rank is alone, and has it.
PendingMaster StartGatherMaster(const WeightView& view, ProcessGroup* ranks, int to);
at::Tensor GatherMaster(const WeightView& view, ProcessGroup* ranks, int to);

}  // namespace temper
