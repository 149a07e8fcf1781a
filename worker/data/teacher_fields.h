// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "worker/data/sample_fields.h"
#include "worker/data/teacher_tokens.h"

namespace temper {

// `teacher_tokens` and `teacher_logprobs` of a record: a list for each token that is learned, of ids and of their
// log-probabilities. INVALID_ARGUMENT, with where it stands, unless both are there and alike, ids are below
// `vocab_size` and different, and the probabilities are ones.
absl::StatusOr<TeacherTokens> ReadTeacherTokens(const SampleFields& fields, int64_t vocab_size);

}  // namespace temper
