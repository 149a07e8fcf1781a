// SPDX-License-Identifier: Apache-2.0
#include "tests/worker/ops/cuda/cuda_check.h"

namespace temper::ops {
namespace {

using Case = std::tuple<Activation, int64_t, int64_t>;

class CudaGatedActivationTest : public testing::TestWithParam<Case> {};

at::Tensor Reference(const at::Tensor& gate_up, Activation activation) {
  const std::vector<at::Tensor> parts = gate_up.chunk(2, -1);
  switch (activation) {
    case Activation::kSilu:
      return parts[0] * parts[0].sigmoid() * parts[1];
    case Activation::kGeluTanh:
      return at::gelu(parts[0], "tanh") * parts[1];
    case Activation::kGelu:
      return at::gelu(parts[0], "none") * parts[1];
    case Activation::kClampedSwiGlu: {
      const at::Tensor gate = parts[0].clamp_max(7.0);
      return gate * (gate * 1.702).sigmoid() * (parts[1].clamp(-7.0, 7.0) + 1);
    }
  }
  return {};
}

TEST_P(CudaGatedActivationTest, OutputAndGradients_EqualReference) {
  at::manual_seed(1);
  const auto [activation, rows, width] = GetParam();
  const Operator op = [&](const auto& in) { return tested::GatedActivation(in[0], activation); };
  const Operator reference = [&](const auto& in) { return Reference(in[0], activation); };
  // Far enough from zero for the clamps.
  const std::vector<at::Tensor> inputs = {Random({rows, 2 * width}) * 4};
  ExpectRightAndRepeatable(op, reference, inputs, at::kFloat, 1e-6);
  ExpectRightAndRepeatable(op, reference, inputs, at::kBFloat16, 1e-2);
}

INSTANTIATE_TEST_SUITE_P(Activations, CudaGatedActivationTest,
                         testing::Combine(testing::Values(Activation::kSilu, Activation::kGeluTanh, Activation::kGelu,
                                                          Activation::kClampedSwiGlu),
                                          testing::Values(1, 13, 500), testing::Values(1, 17, 576, 2312)));

}  // namespace
}  // namespace temper::ops
