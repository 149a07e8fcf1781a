// SPDX-License-Identifier: Apache-2.0
// For units of the Python module alone.
#pragma once

#include <torch/csrc/utils/pybind.h>

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "worker/python/interpreter.h"

namespace temper {

// What a Python exception is as a status, with its traceback (python_call.h). The interpreter's lock is held.
absl::Status StatusOf(py::error_already_set& error);

// A namespace in which `source` was run, under the name of a module.
py::dict RunSource(const char* source, const std::string& module);

// Runs `body` with the interpreter's lock.
template <typename T, typename Body>
absl::StatusOr<T> WithPython(const Body& body) {
  const NoLeakCheck objects_stay;
  const py::gil_scoped_acquire lock;
  try {
    return body();
  } catch (py::error_already_set& error) {
    return StatusOf(error);
  } catch (const py::cast_error& error) {
    return absl::InternalError(absl::StrCat("transformers' answer is not what was expected: ", error.what()));
  }
}

}  // namespace temper
