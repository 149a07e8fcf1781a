// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace temper::ops {

// Memory that an operator's backward pass writes to, as an argument of its autograd function: no variable of the graph,
// as a tensor among the arguments would be. The tensor may be undefined.
struct BackwardBuffer {
  at::Tensor tensor;
};

// An undefined tensor is not an absent one to ATen and to autograd functions.
inline std::optional<at::Tensor> IfDefined(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional(tensor) : std::nullopt;
}

}  // namespace temper::ops
