// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "client/training_client.h"
#include "client/transfer_place.h"
#include "temper/v1/job.pb.h"

namespace temper {

struct UploadProgress {
  std::string_view path;
  int64_t sent_bytes = 0;
  int64_t total_bytes = 0;  // of the file
};

struct UploadResult {
  int files = 0;
  int64_t bytes = 0;       // of all of them
  int64_t sent_bytes = 0;  // less what the server had already
};

// Sends the files of this machine that `data` and `validation` of a job name to the server, those that it has not got,
// and puts the places that they have there into `spec`, which is complete then or, after an error, not to be used.
// `where` says where a field ("data.uri") can be mended, for messages. Where the server has no place for an upload, it
// is waited for (client/transfer_place.h).
//
// INVALID_ARGUMENT: a URI is not one of a file of this machine, or the server takes no such file. Or as TrainingClient.
absl::StatusOr<UploadResult> UploadData(const TrainingClient& client, v1::JobSpec& spec,
                                        absl::FunctionRef<std::string(std::string_view field)> where,
                                        absl::FunctionRef<void(const UploadProgress&)> progress,
                                        WaitingForPlace waiting);

}  // namespace temper
