// SPDX-License-Identifier: Apache-2.0
#include "worker/hf_backend/leaf.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <iterator>

#include "worker/model/gradient.h"

namespace temper {

at::Tensor BackpropagateInto(const std::vector<Leaf>& leaves, const at::Tensor& output, const at::Tensor& grad_output,
                             const at::Tensor& input) {
  std::vector<Leaf> trained;
  std::ranges::copy_if(leaves, std::back_inserter(trained), [](const Leaf& leaf) { return leaf.parameter->trainable; });
  std::vector<at::Tensor> inputs, grad_outputs;
  for (const Leaf& leaf : trained) inputs.push_back(leaf.tensor);
  if (input.defined()) inputs.push_back(input);
  if (grad_output.defined()) grad_outputs.push_back(grad_output);
  const std::vector<at::Tensor> grads = torch::autograd::grad({output}, inputs, grad_outputs, std::nullopt,
                                                              /*create_graph=*/false, /*allow_unused=*/true);
  for (size_t i = 0; i < trained.size(); ++i) {
    if (!grads[i].defined()) continue;
    AccumulateGradient(*trained[i].parameter, grads[i].reshape(trained[i].parameter->weight.sizes()));
  }
  return input.defined() ? grads.back() : at::Tensor();
}

}  // namespace temper
