// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/statusor.h"
#include "temper/v1/job.pb.h"

namespace temper {

// Checks a job against every limit in proto/temper/v1/job.proto and fills in its defaults, except those that depend on
// the model or the data (`data.max_sample_tokens`; `training.warmup_steps` of a run that is given in epochs). Pure:
// looks at no file.
//
// INVALID_ARGUMENT with a violation for each wrong field, its path beginning with "spec." (common/rpc/status.h).
absl::StatusOr<v1::JobSpec> CompleteJobSpec(v1::JobSpec spec);

}  // namespace temper
