// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/grouped_linear.h"

#include "tests/worker/ops/reference_check.h"
#include "worker/ops/cpu/operators.h"

namespace temper::ops {
namespace {

// Group by group, in plain operators.
at::Tensor Reference(const std::vector<at::Tensor>& in, const std::vector<int64_t>& starts) {
  std::vector<at::Tensor> rows;
  for (size_t group = 0; group + 1 < starts.size(); ++group) {
    const auto g = static_cast<int64_t>(group);
    at::Tensor y = at::matmul(in[0].slice(0, starts[group], starts[group + 1]), in[1].select(0, g).t());
    rows.push_back(in.size() == 3 ? y + in[2].select(0, g) : y);
  }
  return at::cat(rows);
}

TEST(GroupedLinear, OutputAndGradients_EqualReference) {
  const std::vector<int64_t> starts = {0, 5, 5, 6, 13};  // a group without rows, one with a single row
  for (const bool bias : {false, true}) {
    at::manual_seed(1);
    std::vector<at::Tensor> inputs = {at::randn({13, 7}), at::randn({4, 9, 7})};
    if (bias) inputs.push_back(at::randn({4, 9}));
    const Operator op = [&](const auto& in) {
      return GroupedLinear(in[0], in[1], bias ? in[2] : at::Tensor(), starts);
    };
    const Operator reference = [&](const auto& in) { return Reference(in, starts); };
    ExpectEqualsReference(op, reference, inputs, at::kFloat, 1e-6);
    ExpectEqualsReference(op, reference, inputs, at::kBFloat16, 1e-2);
  }
}

// Products so large that all threads work on each.
TEST(GroupedLinear, LargeGroups_EqualReference) {
  const std::vector<int64_t> starts = {0, 500, 1100};
  at::manual_seed(2);
  const std::vector<at::Tensor> inputs = {at::randn({1100, 1024}), at::randn({2, 2048, 1024}) / 32};
  ExpectEqualsReference([&](const auto& in) { return GroupedLinear(in[0], in[1], {}, starts); },
                        [&](const auto& in) { return Reference(in, starts); }, inputs, at::kFloat, 1e-5);
}

// As in training.
TEST(GroupedLinear, GradientBuffer_GetsTheWeightsGradientAdded) {
  const std::vector<int64_t> starts = {0, 5, 5, 6, 13};
  at::manual_seed(3);
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor x = at::randn({13, 8}, dtype), grad_y = at::randn({13, 16}, dtype);
    const at::Tensor weight = at::randn({4, 16, 8}, dtype).requires_grad_();
    const at::Tensor before = at::randn({4, 16, 8}), buffer = before.clone();
    const bool exact = dtype == at::kFloat || cpu::CanMultiply(grad_y.t(), x, buffer[0]);
    const double bound = exact ? 1e-5 : 1e-2;  // plain ATen's product of bf16 is bf16
    GroupedLinear(x, weight, {}, starts, buffer).backward(grad_y);
    EXPECT_FALSE(weight.grad().defined());
    for (int64_t group = 0; group < 4; ++group) {
      const auto rows = [&](const at::Tensor& tensor) {
        return tensor.slice(0, starts[group], starts[group + 1]).to(at::kDouble);
      };
      const at::Tensor expected = before[group].to(at::kDouble) + rows(grad_y).t().mm(rows(x));
      EXPECT_LT((buffer[group] - expected).norm().item<double>(), bound * expected.norm().item<double>()) << group;
    }
  }
}

TEST(GroupedLinear, StartsThatDoNotFit_Throw) {
  const at::Tensor x = at::randn({3, 2}), weight = at::randn({2, 4, 2});
  EXPECT_THROW(GroupedLinear(x, weight, {}, {0, 3}), c10::Error);
  EXPECT_THROW(GroupedLinear(x, weight, {}, {0, 1, 2}), c10::Error);
}

}  // namespace
}  // namespace temper::ops
