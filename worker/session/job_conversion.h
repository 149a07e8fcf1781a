// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "temper/v1/job.pb.h"
#include "worker/train/train_job.h"

namespace temper {

// The job file as the trainer's plain structs, with the defaults that job.proto's comments give. Limits are the
// server's to check; what is refused here is what has no meaning at all: a required field that is missing.
//
// `job_name` is `jobs/{id}` or the id alone. INVALID_ARGUMENT names the field.
absl::StatusOr<TrainJob> TrainJobFromSpec(const v1::JobSpec& spec, const std::string& job_name, int32_t epoch);

}  // namespace temper
