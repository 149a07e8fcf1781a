// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

namespace temper::ops {

// Rows tokens_T (int64) of weight_VD: [T, D]. Not recorded by autograd.
at::Tensor EmbeddingLookup(const at::Tensor& weight_VD, const at::Tensor& tokens_T);

// Adds grad_TD (any floating dtype) to rows tokens_T of grad_weight_VD (fp32), in the order of T.
void EmbeddingBackward(const at::Tensor& grad_TD, const at::Tensor& tokens_T, at::Tensor grad_weight_VD);

}  // namespace temper::ops
