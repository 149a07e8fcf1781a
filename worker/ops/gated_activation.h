// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include "worker/ops/activation.h"

namespace temper::ops {

// The two halves of a gated feed-forward layer (SwiGLU and GeGLU, Shazeer 2020), joined as Activation says. gate_up_TF
// holds gate in its first half of columns and up in the second. Differentiable; keeps its input alone.
at::Tensor GatedActivation(const at::Tensor& gate_up_TF, Activation activation);

}  // namespace temper::ops
