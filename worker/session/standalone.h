// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ostream>
#include <string>

#include "worker/session/session.h"

namespace temper {

// Trains what the job file at `path` (a JobSpec as JSON) says, in this process and without any server. Writes one JSON
// object a line to `out` for every phase, step and export (`{"step": 1, "loss": …}`), and log lines and the error that
// ended it, if any, to `errors`. Returns the process's exit code: 0, or 1 when it failed.
int RunStandalone(const std::string& path, const std::string& job_id, const TrainFunction& train, std::ostream& out,
                  std::ostream& errors);

}  // namespace temper
