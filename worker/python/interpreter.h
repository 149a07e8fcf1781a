// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"

namespace temper {

// Starts the process's interpreter, if it does not run yet, in the environment of TEMPER_PYTHON (the path of a python;
// without it, the environment that temper was built with). The caller does not hold the interpreter's lock afterwards.
// UNAVAILABLE when there is no such python.
absl::Status StartInterpreter();

}  // namespace temper
