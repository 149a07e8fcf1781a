// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

namespace temper {

// Sees what the linear maps and norms of a model compute, for comparing it with another model. Training has none.
class ModuleObserver {
 public:
  virtual ~ModuleObserver() = default;
  // Called in the order of execution. `name` is internal, without ".weight": "layers.0.attn.q"; of a matrix with
  // several parts each is told on its own. By token: [T, …].
  virtual void OnModule(const std::string& name, const at::Tensor& input, const at::Tensor& output) = 0;
};

}  // namespace temper
