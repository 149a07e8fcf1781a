// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/embedding.h"

#include <ATen/ATen.h>

#include "worker/ops/cuda_dispatch.h"

namespace temper::ops {

at::Tensor EmbeddingLookup(const at::Tensor& weight_VD, const at::Tensor& tokens_T) {
  const at::NoGradGuard no_grad;
  return weight_VD.index_select(0, tokens_T);
}

void EmbeddingBackward(const at::Tensor& grad_TD, const at::Tensor& tokens_T, at::Tensor grad_weight_VD) {
  RETURN_IF_CUDA(grad_TD, EmbeddingBackward(grad_TD, tokens_T, grad_weight_VD));
  const at::NoGradGuard no_grad;
  grad_weight_VD.index_add_(0, tokens_T, grad_TD.to(at::kFloat));
}

}  // namespace temper::ops
