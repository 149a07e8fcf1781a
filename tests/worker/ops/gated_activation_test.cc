// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/gated_activation.h"

#include "tests/worker/ops/reference_check.h"

namespace temper::ops {
namespace {

class GatedActivationTest : public testing::TestWithParam<Activation> {};

TEST_P(GatedActivationTest, OutputAndGradients_EqualReference) {
  at::manual_seed(1);
  const Activation activation = GetParam();
  const Operator op = [&](const auto& in) { return GatedActivation(in[0], activation); };
  const Operator reference = [&](const auto& in) {
    const std::vector<at::Tensor> parts = in[0].chunk(2, -1);
    if (activation == Activation::kSilu) return parts[0] * parts[0].sigmoid() * parts[1];
    if (activation == Activation::kClampedSwiGlu) {
      const at::Tensor gate = parts[0].clamp_max(7);
      return gate * (1.702 * gate).sigmoid() * (parts[1].clamp(-7, 7) + 1);
    }
    return at::gelu(parts[0], activation == Activation::kGeluTanh ? "tanh" : "none") * parts[1];
  };
  // Some beyond the clamps.
  const std::vector<at::Tensor> inputs = {at::randn({13, 34}) * 4};
  ExpectEqualsReference(op, reference, inputs, at::kFloat, 1e-6);
  ExpectEqualsReference(op, reference, inputs, at::kBFloat16, 1e-2);
}

INSTANTIATE_TEST_SUITE_P(Activations, GatedActivationTest,
                         testing::Values(Activation::kSilu, Activation::kGeluTanh, Activation::kGelu,
                                         Activation::kClampedSwiGlu));

}  // namespace
}  // namespace temper::ops
