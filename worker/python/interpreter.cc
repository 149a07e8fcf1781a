// SPDX-License-Identifier: Apache-2.0
#include <Python.h>
//
#include <cstdlib>
#include <filesystem>
#include <string>

#include "absl/strings/str_cat.h"
#include "worker/python/interpreter.h"

namespace temper {
namespace {

absl::Status Start() {
  const NoLeakCheck interpreter_stays;
  const char* variable = std::getenv("TEMPER_PYTHON");
  const std::string executable = variable != nullptr ? variable : TEMPER_PYTHON_EXECUTABLE;
  if (!std::filesystem::exists(executable)) {
    return absl::UnavailableError(absl::StrCat(
        "there is no ", executable, ": set TEMPER_PYTHON to the python of an environment with torch and transformers"));
  }
  PyConfig config;
  PyConfig_InitPythonConfig(&config);
  config.install_signal_handlers = 0;  // they are the engine's
  config.parse_argv = 0;
  // Python takes its environment from where it believes to be.
  PyStatus status = PyConfig_SetBytesString(&config, &config.executable, executable.c_str());
  if (!PyStatus_Exception(status)) {
    status = PyConfig_SetBytesString(&config, &config.program_name, executable.c_str());
  }
  if (!PyStatus_Exception(status)) status = Py_InitializeFromConfig(&config);
  PyConfig_Clear(&config);
  if (PyStatus_Exception(status)) {
    return absl::UnavailableError(absl::StrCat("Python does not start with ", executable, ": ",
                                               status.err_msg != nullptr ? status.err_msg : "no reason given"));
  }
  PyEval_SaveThread();
  return absl::OkStatus();
}

}  // namespace

absl::Status StartInterpreter() {
  // Never stopped: torch's own objects outlive any moment at which it could be.
  static const absl::Status status = Start();
  return status;
}

}  // namespace temper
