// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "worker/ops/activation.h"

namespace temper::ops::cpu {

// Rows of a gated feed-forward layer, dense and of one dtype: `gate_up` is 2·width wide, the others width.
struct GatedRows {
  bool bf16 = false;
  int64_t width = 0;
  Activation activation = Activation::kSilu;  // any but kGelu
  const void* gate_up = nullptr;
  void* y = nullptr;  // forward writes it
  // Backward alone.
  const void* grad_y = nullptr;
  void* grad_gate_up = nullptr;
};

struct GatedActivationKernels {
  void (*forward)(const GatedRows& rows, int64_t begin, int64_t end);  // rows [begin, end)
  void (*backward)(const GatedRows& rows, int64_t begin, int64_t end);
};

namespace avx2 {
extern const GatedActivationKernels kGatedActivation;
}
namespace avx512 {
extern const GatedActivationKernels kGatedActivation;
}

}  // namespace temper::ops::cpu
