// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/data/micro_batch.h"
#include "worker/data/sample_builder.h"
#include "worker/data/sample_reader.h"

namespace temper {

// Samples that are never trained on, packed once; the same rows every time they are looked at.
struct ValidationSet {
  std::vector<MicroBatch> rows;
  int64_t samples = 0;
  int64_t scored_tokens = 0;

  // MicroBatch::reference_S of all rows, one after another. INVALID_ARGUMENT when it is another number.
  absl::Status SetReference(const std::vector<float>& logprobs);
};

// Packs the first `max_samples` sound samples into rows of `micro_batch_tokens`. Weights do not count here. Errors as
// SampleReader.
absl::StatusOr<ValidationSet> ReadValidationSet(const SampleOptions& options, int64_t max_samples,
                                                int64_t micro_batch_tokens, const SampleBuilder& builder, int threads);

}  // namespace temper
