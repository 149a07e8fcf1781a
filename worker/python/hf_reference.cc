// SPDX-License-Identifier: Apache-2.0
#include "worker/python/hf_reference.h"

#include "worker/python/python_runtime.h"

namespace temper {

absl::StatusOr<std::unique_ptr<HfReference>> HfReference::Open(const HfSource& source, at::ScalarType dtype) {
  const absl::StatusOr<void*> open = PythonSymbol("temper_open_hf_reference");
  if (!open.ok()) return open.status();
  absl::StatusOr<std::unique_ptr<HfReference>> reference;
  reinterpret_cast<OpenHfReferenceFunction*>(*open)(source, dtype, reference);
  return reference;
}

}  // namespace temper
