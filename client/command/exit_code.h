// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"
#include "temper/v1/training_service.pb.h"

namespace temper::command {

// What `temper` tells the shell. A promise to scripts: never renumbered.
enum ExitCode {
  kExitOk = 0,
  kExitUsage = 2,        // the command line itself is wrong
  kExitRefused = 3,      // bad input, or the server refused
  kExitNotFound = 4,     // no such job or file
  kExitJobEndedBad = 5,  // the job that was watched ended FAILED or CANCELLED, or the model did not pass
  kExitUnreachable = 6,  // no server answers
  kExitOther = 7,        // interrupted, disk full, a bug
};

ExitCode ExitCodeOf(const absl::Status& status);
// Of a job that has ended.
ExitCode ExitCodeOf(v1::JobState state);

// The list above, for --help.
extern const char kExitCodeHelp[];

}  // namespace temper::command
