// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/ATen.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "worker/ops/cuda/element_type.h"

namespace temper::ops::cuda {

inline ElementType ElementTypeOf(const at::Tensor& x) {
  TORCH_CHECK(x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16,
              "CUDA operators take fp32 and bf16, not ", x.scalar_type());
  return x.scalar_type() == at::kFloat ? ElementType::kFloat : ElementType::kBfloat16;
}

// Calls launch(stream) with the current stream of x's device. Nothing is launched for an x without elements.
template <typename Function>
void Launch(const at::Tensor& x, const Function& launch) {
  if (x.numel() == 0) return;
  const c10::cuda::CUDAGuard guard(x.device());
  launch(c10::cuda::getCurrentCUDAStream().stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

}  // namespace temper::ops::cuda
