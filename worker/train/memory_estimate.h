// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "worker/checkpoint/adapter_plan.h"
#include "worker/checkpoint/native_model.h"
#include "worker/train/train_job.h"

namespace temper {

// An estimate from shapes alone: `data`, `process` and `available` are for who knows them to fill in.
//
// What is counted, with T tokens of a micro-batch: weights and their fp32 masters; gradients (fp32) and AdamW's two
// moments (fp32) of what is trained; for every block what its backward pass reads, and for one block what it makes; a
// chunk of logits and its gradient. `takes_checkpoints`: the snapshot counts. `plan` is null without adapters. Several
// ranks are estimated together, since they are on one machine.
MemoryEstimate EstimateMemory(const TrainJob& job, const NativeRepository& model, const AdapterPlan* plan, bool bf16,
                              bool takes_checkpoints);

// Resident set of this process now, and what the machine (or this process's control group) has left for it, in bytes; 0
// where the system does not tell.
int64_t ResidentBytes();
int64_t AvailableBytes();

}  // namespace temper
