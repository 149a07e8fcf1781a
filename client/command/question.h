// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "client/command/command_line.h"

namespace temper::command {

// Waits for the end of a job that trains nothing but finds something out, and forgets it: it was a question, not a job.
// `doing` is shown meanwhile. The job as it was at its end; when the wait is broken off (Ctrl-C), the job is cancelled.
absl::StatusOr<v1::Job> WaitForAnswer(const Context& context, const std::string& job, const std::string& doing);

// Says on standard error why a job has failed to find out.
ExitCode FailWith(const v1::Job& job);

}  // namespace temper::command
