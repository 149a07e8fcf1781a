// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

#include "worker/checkpoint/tensor_map.h"
#include "worker/model/transformer.h"

namespace temper {

// The native model on documents (int64 ids, [T] each), packed into one row. Errors are c10::Error.

// Hidden states behind the final norm, [sum of T, D]. Nothing is recorded.
at::Tensor PackedHidden(Transformer& model, const std::vector<at::Tensor>& documents);

// Gradients of the mean cross-entropy of next tokens, under the names of a checkpoint's tensors. The model's weights
// are all trainable.
std::map<std::string, at::Tensor> PackedGradients(Transformer& model, const TensorMap& map,
                                                  const std::vector<at::Tensor>& documents);

}  // namespace temper
