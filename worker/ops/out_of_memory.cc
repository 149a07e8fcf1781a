// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/out_of_memory.h"

#include <string_view>

namespace temper::ops {

bool IsOutOfMemory(const c10::Error& error) {
  if (dynamic_cast<const c10::OutOfMemoryError*>(&error) != nullptr) return true;
  const std::string_view message = error.what_without_backtrace();
  const auto says = [&](std::string_view words) { return message.find(words) != message.npos; };
  return says("can't allocate memory") || says("CUDA error: out of memory") || says("CUBLAS_STATUS_ALLOC_FAILED");
}

}  // namespace temper::ops
