// SPDX-License-Identifier: Apache-2.0
#include "worker/train/step_metrics.h"

#include <sys/resource.h>

#include <algorithm>

#include "worker/ops/packed_attention.h"

namespace temper {

StepWork CountWork(const std::vector<MicroBatch>& batches) {
  StepWork work;
  for (const MicroBatch& batch : batches) {
    work.tokens += batch.num_tokens();
    work.capacity += batch.capacity;
    work.scored_tokens += std::count(batch.loss_mask_T.begin(), batch.loss_mask_T.end(), 1);
    work.attention_pairs += ops::CountAttentionPairs(batch.document_starts);
  }
  return work;
}

double ModelFlops(const FlopRates& rates, const StepWork& work) {
  return rates.per_token * static_cast<double>(work.tokens) +
         rates.per_scored_token * static_cast<double>(work.scored_tokens) +
         rates.per_attention_pair * static_cast<double>(work.attention_pairs);
}

double HardwareFlops(const FlopRates& rates, const StepWork& work) {
  return ModelFlops(rates, work) + rates.recomputed_per_pair * static_cast<double>(work.attention_pairs);
}

int64_t PeakMemoryBytes() {
  rusage usage{};
  if (getrusage(RUSAGE_SELF, &usage) != 0) return 0;
  return static_cast<int64_t>(usage.ru_maxrss) * 1024;
}

}  // namespace temper
