// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include "worker/ops/divergence_config.h"

namespace temper::ops {

// How far each row is from the teacher's, fp32 [C]. Unless null, *grad_CV becomes ∂(their sum)/∂student. Logits are
// finite, fp32 [C, V]; the teacher's are lost. Nothing is recorded.
at::Tensor Divergence(const at::Tensor& student_CV, at::Tensor teacher_CV, const DivergenceConfig& config,
                      at::Tensor* grad_CV = nullptr);

}  // namespace temper::ops
