// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace temper::ops::cpu {

// bfloat16 as its bits: kernels don't include ATen.
struct Bf16 {
  uint16_t bits;
};

}  // namespace temper::ops::cpu
