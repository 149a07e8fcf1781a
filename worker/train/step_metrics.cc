// SPDX-License-Identifier: Apache-2.0
#include "worker/train/step_metrics.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <fstream>
#include <string>

#include "worker/ops/packed_attention.h"

namespace temper {

StepWork CountWork(const FlopRates& rates, const std::vector<MicroBatch>& batches, const Objective& objective) {
  StepWork work{.reference = objective.reference() == Reference::kWithoutAdapters};
  work.attention_pairs.resize(rates.attention.size());
  for (const MicroBatch& batch : batches) {
    work.tokens += batch.num_tokens();
    work.capacity += batch.capacity;
    work.normalizer += objective.Count(batch);
    work.scored_tokens += std::count(batch.loss_mask_T.begin(), batch.loss_mask_T.end(), 1);
    for (size_t i = 0; i < rates.attention.size(); ++i) {
      work.attention_pairs[i] += ops::CountAttentionPairs(batch.document_starts, rates.attention[i].window);
    }
  }
  return work;
}

double ModelFlops(const FlopRates& rates, const StepWork& work) {
  const auto with_forward = [&work](double both_ways, double forward) {
    return both_ways + (work.reference ? forward : 0);
  };
  double flops =
      with_forward(rates.per_token, rates.forward_per_token) * static_cast<double>(work.tokens) +
      with_forward(rates.per_scored_token, rates.forward_per_scored_token) * static_cast<double>(work.scored_tokens);
  for (size_t i = 0; i < rates.attention.size(); ++i) {
    const FlopRates::Attention& attention = rates.attention[i];
    // Backward multiplies twice what forward does.
    flops += with_forward(attention.per_pair, attention.per_pair / 3) * static_cast<double>(work.attention_pairs[i]);
  }
  return flops;
}

double HardwareFlops(const FlopRates& rates, const StepWork& work) {
  double flops = ModelFlops(rates, work) + rates.recomputed_per_token * static_cast<double>(work.tokens);
  for (size_t i = 0; i < rates.attention.size(); ++i) {
    flops += rates.attention[i].recomputed_per_pair * static_cast<double>(work.attention_pairs[i]);
  }
  return flops;
}

// Not getrusage's: that begins with what the process had that started this one.
int64_t PeakMemoryBytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    int64_t kib = 0;
    if (std::sscanf(line.c_str(), "VmHWM: %" SCNd64, &kib) == 1) return kib * 1024;
  }
  return 0;
}

}  // namespace temper
