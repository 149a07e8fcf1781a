// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/storage/remote_file_system.h"

namespace temper {

// s3://bucket/prefix?endpoint=URL&region=NAME. Without `endpoint`: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, else
// Amazon's. Without `region`: AWS_REGION, AWS_DEFAULT_REGION, else the bucket's own at Amazon, us-east-1 elsewhere.
// Credentials come from where the AWS SDK looks for them: the environment, the profile (AWS_PROFILE), a web identity, a
// container's or an instance's role.
//
// A request that fails for a reason that may pass (no connection, no answer, 5xx, throttling) is repeated with growing
// pauses until `deadline` has passed since its first failure. INVALID_ARGUMENT for a malformed URI. Any thread.
absl::StatusOr<RemotePlace> OpenS3(std::string_view uri, std::chrono::milliseconds deadline);

// What an error of the S3 file system means, with a FailureCause. `message` says what was to be done and where; what
// went wrong and what to do about it are added. Not for errors with an errno.
absl::Status FromS3Error(const arrow::Status& status, std::string message);

}  // namespace temper
