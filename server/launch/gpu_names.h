// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace temper {

// Names of the first `count` GPUs of this host: those that `visible`, the value of CUDA_VISIBLE_DEVICES, leaves; all,
// by number, if it is null. INVALID_ARGUMENT when it leaves fewer, or names
// one twice.
absl::StatusOr<std::vector<std::string>> NameGpus(int count, const char* visible);

}  // namespace temper
