// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

namespace temper::ops {

// Tensors of fp32 masters as two halves, bf16 and int16, element by element as master_split.h says. All are dense.
// It is done on the CPU, wherever they are: masters are whole where files are read and written.

// A new fp32 tensor.
at::Tensor JoinMasters(const at::Tensor& high, const at::Tensor& low);

void SplitMasters(const at::Tensor& master, at::Tensor high, at::Tensor low);

}  // namespace temper::ops
