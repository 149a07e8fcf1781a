// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "worker/model/parameter.h"

namespace temper {

// Allocates a zero parameter: fp32 alone, or bf16 with its low part when it is trainable.
void InitParameter(Parameter& parameter, std::string name, std::vector<int64_t> shape, at::ScalarType dtype,
                   bool trainable);

}  // namespace temper
