// SPDX-License-Identifier: Apache-2.0
#include "worker/train/step_metrics.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <fstream>
#include <string>

#include "worker/ops/packed_attention.h"

namespace temper {
namespace {

std::vector<int64_t> CountPairs(const FlopRates& rates, const std::vector<MicroBatch>& batches) {
  std::vector<int64_t> pairs;
  for (const FlopRates::Attention& attention : rates.attention) {
    int64_t& of_window = pairs.emplace_back(0);
    for (const MicroBatch& batch : batches) {
      of_window += ops::CountAttentionPairs(batch.document_starts, attention.window);
    }
  }
  return pairs;
}

double ForwardFlops(const FlopRates& rates, const StepWork& work, const std::vector<int64_t>& attention_pairs) {
  double flops = rates.forward_per_token * static_cast<double>(work.tokens) +
                 rates.forward_per_scored_token * static_cast<double>(work.scored_tokens);
  for (size_t i = 0; i < rates.attention.size(); ++i) {
    // Backward multiplies twice what forward does.
    flops += rates.attention[i].per_pair / 3 * static_cast<double>(attention_pairs[i]);
  }
  return flops;
}

}  // namespace

StepWork CountWork(const FlopRates& rates, const std::vector<MicroBatch>& batches, const Objective& objective) {
  StepWork work{.attention_pairs = CountPairs(rates, batches)};
  for (const MicroBatch& batch : batches) {
    work.tokens += batch.num_tokens();
    work.capacity += batch.capacity;
    work.normalizer += objective.Count(batch);
    work.scored_tokens += std::count(batch.loss_mask_T.begin(), batch.loss_mask_T.end(), 1);
  }
  if (objective.reference() == Reference::kWithoutAdapters) {
    work.compared_flops = ForwardFlops(rates, work, work.attention_pairs);
  } else if (objective.teacher() != nullptr) {
    const FlopRates of_teacher = objective.teacher()->flop_rates();
    work.compared_flops = ForwardFlops(of_teacher, work, CountPairs(of_teacher, batches));
  }
  return work;
}

double ModelFlops(const FlopRates& rates, const StepWork& work) {
  double flops = work.compared_flops + rates.per_token * static_cast<double>(work.tokens) +
                 rates.per_scored_token * static_cast<double>(work.scored_tokens);
  for (size_t i = 0; i < rates.attention.size(); ++i) {
    flops += rates.attention[i].per_pair * static_cast<double>(work.attention_pairs[i]);
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
