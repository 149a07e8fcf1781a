// SPDX-License-Identifier: Apache-2.0
#include "client/command/exit_code.h"

namespace temper::command {

ExitCode ExitCodeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return kExitOk;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kUnimplemented:
      return kExitRefused;
    case absl::StatusCode::kNotFound:
      return kExitNotFound;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
      return kExitUnreachable;
    default:
      return kExitOther;
  }
}

ExitCode ExitCodeOf(v1::JobState state) { return state == v1::JOB_STATE_SUCCEEDED ? kExitOk : kExitJobEndedBad; }

const char kExitCodeHelp[] =
    "Exit codes:\n"
    "  0  done\n"
    "  2  the command line is wrong\n"
    "  3  bad input, or the server refused\n"
    "  4  no such job or file\n"
    "  5  the watched job ended FAILED or CANCELLED, or the model did not pass\n"
    "  6  no server answers\n"
    "  7  interrupted, or anything else\n";

}  // namespace temper::command
