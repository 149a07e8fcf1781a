// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/embedding.h"

#include <ATen/ATen.h>

#include <optional>

#include "worker/ops/cuda/embedding_kernel.h"
#include "worker/ops/cuda/launch.h"
#include "worker/ops/cuda/operators.h"

namespace temper::ops::cuda {

void EmbeddingBackward(const at::Tensor& grad_any, const at::Tensor& tokens_T, at::Tensor grad_weight_VD) {
  const at::NoGradGuard no_grad;
  TORCH_CHECK(grad_weight_VD.is_contiguous() && grad_weight_VD.scalar_type() == at::kFloat,
              "the embedding's gradient must be dense and fp32");
  const at::Tensor grad_TD = grad_any.contiguous();
  const auto [sorted_T, order_T] = at::sort(tokens_T, /*stable=*/std::optional(true), /*dim=*/0);
  Launch(grad_TD, [&, &sorted = sorted_T, &order = order_T](cudaStream_t stream) {
    EmbeddingGradient(ElementTypeOf(grad_TD), grad_TD.size(0), grad_TD.size(1), sorted.const_data_ptr<int64_t>(),
                      order.const_data_ptr<int64_t>(), grad_TD.const_data_ptr(),
                      grad_weight_VD.mutable_data_ptr<float>(), stream);
  });
}

}  // namespace temper::ops::cuda
