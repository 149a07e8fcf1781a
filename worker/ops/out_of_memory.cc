// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/out_of_memory.h"

#include <string_view>

namespace temper::ops {

bool IsOutOfMemory(const c10::Error& error) {
  if (dynamic_cast<const c10::OutOfMemoryError*>(&error) != nullptr) return true;
  return std::string_view(error.what_without_backtrace()).find("can't allocate memory") != std::string_view::npos;
}

}  // namespace temper::ops
