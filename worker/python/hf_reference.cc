// SPDX-License-Identifier: Apache-2.0
#include "worker/python/hf_reference.h"

#include "worker/python/python_runtime.h"

namespace temper {

absl::StatusOr<std::unique_ptr<HfReference>> HfReference::Open(const std::string& directory, at::ScalarType dtype,
                                                               const HfLayers& layers) {
  const absl::StatusOr<void*> open = PythonSymbol("temper_open_hf_reference");
  if (!open.ok()) return open.status();
  absl::StatusOr<std::unique_ptr<HfReference>> reference;
  reinterpret_cast<OpenHfReferenceFunction*>(*open)(directory, dtype, layers, reference);
  return reference;
}

}  // namespace temper
