// SPDX-License-Identifier: Apache-2.0
#include "worker/python/hf_model.h"

#include <utility>

#include "absl/strings/cord.h"
#include "worker/python/python_call.h"
#include "worker/python/python_runtime.h"

namespace temper {

absl::StatusOr<std::unique_ptr<HfModel>> HfModel::Open(const HfModelSource& source, bool meta, HfAttention attention) {
  const absl::StatusOr<void*> open = PythonSymbol("temper_open_hf_model");
  if (!open.ok()) return open.status();
  absl::StatusOr<std::unique_ptr<HfModel>> model;
  reinterpret_cast<OpenHfModelFunction*>(*open)(source, meta, std::move(attention), model);
  return model;
}

std::string PythonTraceback(const absl::Status& status) {
  const auto traceback = status.GetPayload(kTracebackPayload);
  return traceback ? std::string(*traceback) : "";
}

}  // namespace temper
