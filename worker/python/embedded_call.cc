// SPDX-License-Identifier: Apache-2.0
#include "worker/python/embedded_call.h"

#include "absl/strings/cord.h"
#include "common/failure.h"
#include "worker/python/python_call.h"

namespace temper {
namespace {

std::string Traceback(const py::error_already_set& error) {
  try {
    const py::object lines = py::module_::import("traceback").attr("format_exception")(error.value());
    return py::str("").attr("join")(lines).cast<std::string>();
  } catch (const py::error_already_set&) {
    return "";
  }
}

// torch reports a failed allocation as a plain error, and the loader of extension modules one of its own.
bool IsOutOfMemory(const py::error_already_set& error, const std::string& text) {
  const auto says = [&](const char* words) { return text.find(words) != text.npos; };
  return error.matches(PyExc_MemoryError) || says("can't allocate memory") || says("Cannot allocate memory") ||
         says("out of memory") || says("failed to map segment");
}

absl::Status Translate(const py::error_already_set& error) {
  const std::string text = py::str(error.value()).cast<std::string>();
  const std::string kind = py::str(error.type().attr("__name__")).cast<std::string>();
  if (kind == "Unsupported") return absl::UnimplementedError(text);
  if (IsOutOfMemory(error, text)) {
    return WithCause(absl::ResourceExhaustedError(absl::StrCat("transformers: ", kind, ": ", text)),
                     FailureCause::kOutOfMemory);
  }
  if (error.matches(PyExc_ImportError)) {
    return absl::UnavailableError(absl::StrCat("the Python environment lacks something: ", kind, ": ", text,
                                               ". Set TEMPER_PYTHON to the python of one with torch and transformers"));
  }
  return absl::InternalError(absl::StrCat("transformers: ", kind, ": ", text));
}

}  // namespace

absl::Status StatusOf(py::error_already_set& error) {
  absl::Status status = Translate(error);
  // What can't be trained is no mistake of any code: its message says all.
  if (!absl::IsUnimplemented(status)) status.SetPayload(kTracebackPayload, absl::Cord(Traceback(error)));
  return status;
}

py::dict RunSource(const char* source, const std::string& module) {
  const py::module_ builtins = py::module_::import("builtins");
  py::dict names;
  names["__name__"] = module;
  builtins.attr("exec")(builtins.attr("compile")(source, module + ".py", "exec"), names);
  return names;
}

}  // namespace temper
