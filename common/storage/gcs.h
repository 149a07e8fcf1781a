// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <string_view>

#include "absl/status/statusor.h"
#include "common/storage/remote_file_system.h"

namespace temper {

// gs://bucket/prefix?endpoint=URL. Without `endpoint`: STORAGE_EMULATOR_HOST, CLOUD_STORAGE_EMULATOR_ENDPOINT, else
// Google's. Credentials are Google's application default ones: GOOGLE_APPLICATION_CREDENTIALS, those of `gcloud auth
// application-default login`, the machine's service account. An endpoint of http:// is an emulator's and gets none, nor
// does one that the URI names: a job may not send the server's token wherever it likes.
//
// A request that fails for a reason that may pass is repeated by the SDK, with growing pauses, until `deadline` has
// passed since it began. One that is answered with silence ends after the SDK's own two minutes, whatever the deadline.
// INVALID_ARGUMENT for a malformed URI. Any thread.
absl::StatusOr<RemotePlace> OpenGcs(std::string_view uri, std::chrono::milliseconds deadline);

}  // namespace temper
