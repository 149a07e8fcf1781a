// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "worker/data/micro_batch.h"
#include "worker/model/trainable_model.h"
#include "worker/train/objective.h"

namespace temper {

// What one optimizer step worked on, counted from its micro-batches.
struct StepWork {
  int64_t tokens = 0;
  int64_t capacity = 0;
  int64_t scored_tokens = 0;
  double normalizer = 0;      // the objective's
  double compared_flops = 0;  // of forward passes of what the model is compared with: its reference, or a teacher
  // For each of FlopRates::attention: pairs of query and key that the masks leave.
  std::vector<int64_t> attention_pairs;
};

StepWork CountWork(const FlopRates& rates, const std::vector<MicroBatch>& batches, const Objective& objective);

// FLOPs that the work takes by the one rule of docs/ARCHITECTURE.md, from shapes, useful tokens only.
double ModelFlops(const FlopRates& rates, const StepWork& work);
// The same with what backward computes a second time.
double HardwareFlops(const FlopRates& rates, const StepWork& work);

// Largest resident set of this process so far, in bytes; 0 where the system does not tell.
int64_t PeakMemoryBytes();

}  // namespace temper
