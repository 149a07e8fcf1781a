// SPDX-License-Identifier: Apache-2.0
#include "worker/python/python_runtime.h"

#include <dlfcn.h>

#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace temper {

absl::StatusOr<void*> PythonSymbol(const std::string& symbol) {
  std::error_code error;
  const std::filesystem::path binary = std::filesystem::read_symlink("/proc/self/exe", error);
  const std::filesystem::path module = binary.parent_path() / "libtemper_python.so";
  if (error || !std::filesystem::exists(module)) {
    return absl::UnavailableError(
        absl::StrCat(module.string(), " does not exist: temper was built without Python. Install the headers of the ",
                     "environment's Python (Debian: python3-dev), configure and build again"));
  }
  // Global: extension modules of Python take the interpreter's symbols from there.
  void* handle = dlopen(module.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (handle == nullptr) {
    return absl::UnavailableError(absl::StrCat("Python cannot be loaded: ", dlerror(),
                                               ". It needs the Python and the torch that temper was built with"));
  }
  void* function = dlsym(handle, symbol.c_str());
  if (function == nullptr) {
    return absl::UnavailableError(
        absl::StrCat(module.string(), " has no ", symbol, ": it belongs to another build of temper"));
  }
  return function;
}

}  // namespace temper
