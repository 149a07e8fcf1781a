// SPDX-License-Identifier: Apache-2.0
#include "worker/python/python_runtime.h"

#include <dlfcn.h>

#include <string_view>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "common/failure.h"
#include "python_interface.h"

namespace temper {
namespace {

absl::Status OfAnotherBuild(const std::filesystem::path& module) {
  return absl::UnavailableError(
      absl::StrCat(module.string(),
                   " belongs to another build of temper than this process: it was replaced, or does not belong here"));
}

}  // namespace

absl::StatusOr<void*> PythonSymbol(const std::string& symbol) {
  std::error_code error;
  const std::filesystem::path binary = std::filesystem::read_symlink("/proc/self/exe", error);
  return PythonSymbol(binary.parent_path() / "libtemper_python.so", symbol);
}

absl::StatusOr<void*> PythonSymbol(const std::filesystem::path& module, const std::string& symbol) {
  std::error_code error;
  if (!std::filesystem::exists(module, error)) {
    return absl::UnavailableError(
        absl::StrCat(module.string(), " does not exist: temper was built without Python. Install the headers of the ",
                     "environment's Python (Debian: python3-dev), configure and build again"));
  }
  // Global: extension modules of Python take the interpreter's symbols from there.
  void* handle = dlopen(module.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (handle == nullptr) {
    const std::string said = dlerror();
    if (said.find("failed to map segment") != said.npos) {
      return WithCause(absl::ResourceExhaustedError(absl::StrCat("there is no memory to load Python: ", said)),
                       FailureCause::kOutOfMemory);
    }
    return absl::UnavailableError(absl::StrCat("Python cannot be loaded: ", said,
                                               ". It needs the Python and the torch that temper was built with"));
  }
  auto* const interface = reinterpret_cast<const char* (*)()>(dlsym(handle, "temper_python_interface"));
  if (interface == nullptr || std::string_view(interface()) != kPythonInterface) return OfAnotherBuild(module);
  void* function = dlsym(handle, symbol.c_str());
  if (function == nullptr) return OfAnotherBuild(module);
  return function;
}

}  // namespace temper
