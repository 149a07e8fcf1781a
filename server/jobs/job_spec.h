// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/statusor.h"
#include "temper/v1/job.pb.h"
#include "temper/v1/training_service.pb.h"

namespace temper {

// Checks a job against every limit in proto/temper/v1/job.proto and fills in its defaults, except those that depend on
// the model or the data (`data.max_sample_tokens`; `training.warmup_steps` of a run that is given in epochs). Pure:
// looks at no file.
//
// INVALID_ARGUMENT with a violation for each wrong field, its path beginning with "spec." (common/rpc/status.h).
absl::StatusOr<v1::JobSpec> CompleteJobSpec(v1::JobSpec spec);

// The same of a job that only verifies its model: of the spec only `model` (and display name, owner and labels) may be
// there.
absl::StatusOr<v1::JobSpec> CompleteVerifySpec(v1::JobSpec spec);

// Fills in the defaults. INVALID_ARGUMENT with a violation for each wrong field, its path beginning with "verify.".
absl::StatusOr<v1::VerifyOptions> CompleteVerifyOptions(v1::VerifyOptions options);

}  // namespace temper
