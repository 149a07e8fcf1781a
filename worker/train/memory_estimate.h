// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "worker/checkpoint/adapter_plan.h"
#include "worker/checkpoint/native_model.h"
#include "worker/model/recompute.h"
#include "worker/train/train_job.h"

namespace temper {

// An estimate from shapes alone: `data`, `process` and `available` are for who knows them to fill in.
//
// What is counted, with T tokens of a micro-batch: weights and their fp32 masters; gradients (fp32) and AdamW's two
// moments (fp32) of what is trained; for every block what its backward pass reads and `recompute` (one for each block)
// keeps, and for one block what it makes; a chunk of logits and its gradient. `takes_checkpoints`: the snapshot counts.
// `plan` is null without adapters. Ranks of a node
// are estimated together, since they are on one machine; on GPUs, one alone, and without the snapshot, which is the
// machine's.
MemoryEstimate EstimateMemory(const TrainJob& job, const NativeRepository& model, const AdapterPlan* plan, bool bf16,
                              bool takes_checkpoints, const std::vector<Recompute>& recompute);

// What a job's teacher adds: its weights, its hidden states of a micro-batch, and the chunk of logits that the two are
// compared on.
MemoryEstimate EstimateTeacher(const TrainJob& job, const NativeRepository& teacher, bool bf16);

// What each block recomputes under the job's policy. AUTO: attention of as few blocks as will do for the estimate to be
// within nine tenths of `available` bytes, of which the process and the data have their part already, and a teacher is
// to have its own; where all attention is not enough, whole blocks, as few as will do.
std::vector<Recompute> ChooseRecompute(const TrainJob& job, const NativeRepository& model, const AdapterPlan* plan,
                                       bool bf16, int64_t available, const MemoryEstimate& teacher = {});

// "attention of 12 of 30 layers is computed again in backward"; empty where nothing is.
std::string Describe(const std::vector<Recompute>& recompute);

// Resident set of this process now, and what the machine (or this process's control group) has left for it, in bytes; 0
// where the system does not tell.
int64_t ResidentBytes();
int64_t AvailableBytes();

}  // namespace temper
