// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#endif

namespace temper {

// Starts the process's interpreter, if it does not run yet, in the environment of TEMPER_PYTHON (the path of a python;
// without it, the environment that temper was built with). The caller does not hold the interpreter's lock afterwards.
// UNAVAILABLE when there is no such python.
absl::Status StartInterpreter();

// While one lives, what this thread allocates is not looked for as a leak (preset asan): the interpreter and its
// objects stay until the process ends.
class NoLeakCheck {
 public:
#ifdef __SANITIZE_ADDRESS__
  NoLeakCheck() { __lsan_disable(); }
  ~NoLeakCheck() { __lsan_enable(); }
#else
  NoLeakCheck() {}
#endif
  NoLeakCheck(const NoLeakCheck&) = delete;
};

}  // namespace temper
