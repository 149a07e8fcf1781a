// SPDX-License-Identifier: Apache-2.0
#include "worker/data/validation_set.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <optional>
#include <utility>

#include "worker/data/packed_row.h"
#include "worker/data/packer.h"

namespace temper {

absl::Status ValidationSet::SetReference(const std::vector<float>& logprobs) {
  auto next = logprobs.begin();
  for (MicroBatch& row : rows) {
    const auto targets = std::count(row.loss_mask_T.begin(), row.loss_mask_T.end(), 1);
    if (logprobs.end() - next < targets) {
      return absl::InvalidArgumentError("there are fewer log-probabilities of a reference than held-out tokens");
    }
    row.reference_S.assign(next, next + targets);
    next += targets;
  }
  if (next == logprobs.end()) return absl::OkStatus();
  return absl::InvalidArgumentError("there are more log-probabilities of a reference than held-out tokens");
}

absl::StatusOr<ValidationSet> ReadValidationSet(const SampleOptions& options, int64_t max_samples,
                                                int64_t micro_batch_tokens, const SampleBuilder& builder, int threads) {
  absl::StatusOr<std::unique_ptr<SampleReader>> reader = SampleReader::Open(options, builder);
  if (!reader.ok()) return reader.status();
  ValidationSet set;
  while (max_samples > 0) {
    const absl::StatusOr<std::optional<SampleSet>> block = (*reader)->Next(threads);
    if (!block.ok()) return block.status();
    if (!block->has_value()) break;
    const SampleSet& samples = **block;
    std::vector<int64_t> order(std::min(max_samples, samples.size()));
    std::iota(order.begin(), order.end(), 0);
    max_samples -= static_cast<int64_t>(order.size());
    set.samples += static_cast<int64_t>(order.size());
    Packer packer(std::move(order), [&samples](int64_t sample) { return samples.length(sample); }, micro_batch_tokens);
    for (std::vector<int64_t> row = packer.NextRow(); !row.empty(); row = packer.NextRow()) {
      for (const int64_t sample : row) {
        const absl::Span<const uint8_t> scored = samples.scored(sample);
        set.scored_tokens += std::accumulate(scored.begin(), scored.end(), int64_t{0});
      }
      set.rows.push_back(PackRow(samples, row, micro_batch_tokens));
    }
  }
  return set;
}

}  // namespace temper
