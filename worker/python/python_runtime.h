// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>

#include "absl/status/statusor.h"

namespace temper {

// Python is needed by few commands, so nothing links it: what uses it lives in a module beside the binary,
// libtemper_python.so, which is loaded at the first call. That module starts the one interpreter of the process; it
// stays until the process ends.
//
// The function `symbol` of the module. UNAVAILABLE, with what to install, when the module was not built, cannot be
// loaded, or is of a build with another interface; RESOURCE_EXHAUSTED (OUT_OF_MEMORY). Any thread.
absl::StatusOr<void*> PythonSymbol(const std::string& symbol);

// The same of the module in that file.
absl::StatusOr<void*> PythonSymbol(const std::filesystem::path& module, const std::string& symbol);

}  // namespace temper
