// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "absl/types/span.h"
#include "worker/data/micro_batch.h"
#include "worker/data/sample_set.h"

namespace temper {

// Puts samples behind each other into one row with room for `capacity` tokens, which they must fit. Of pairs, a chosen
// answer's document stands before the rejected one's.
MicroBatch PackRow(const SampleSet& set, absl::Span<const int64_t> samples, int64_t capacity);

}  // namespace temper
