// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/linear.h"

#include "tests/worker/ops/reference_check.h"
#include "tests/worker/ops/repeatable.h"
#include "worker/ops/cpu/operators.h"

namespace temper::ops {
namespace {

struct Shape {
  int64_t tokens, inputs, outputs;
};

class LinearTest : public testing::TestWithParam<Shape> {};

TEST_P(LinearTest, OutputAndGradients_EqualReference) {
  at::manual_seed(1);
  const auto [tokens, inputs, outputs] = GetParam();
  const std::vector<at::Tensor> in = {at::randn({tokens, inputs}), at::randn({outputs, inputs}), at::randn({outputs})};
  const Operator op = [](const auto& in) { return Linear(in[0], in[1], in[2]); };
  ExpectEqualsReference(op, op, in, at::kFloat, 2e-6);
  ExpectEqualsReference(op, op, in, at::kBFloat16, 1e-2);
}

// As what autograd returns, but added to what was there, and of bf16 without rounding.
TEST_P(LinearTest, AccumulatedWeightGradient_EqualsReference) {
  const auto [tokens, inputs, outputs] = GetParam();
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    at::manual_seed(2);
    const at::Tensor x = at::randn({tokens, inputs}).to(dtype).requires_grad_();
    const at::Tensor weight = at::randn({outputs, inputs}).to(dtype).requires_grad_();
    const at::Tensor bias = at::randn({outputs}).to(dtype).requires_grad_(),
                     grad = at::randn({tokens, outputs}).to(dtype);
    const at::Tensor before = at::randn({outputs, inputs}), accumulated = before.clone();
    const at::Tensor y = Linear(x, weight, bias, accumulated);
    const auto grads = InPoisonedMemory([&] {
      return torch::autograd::grad({y}, {x, weight, bias}, {grad}, std::nullopt, false, /*allow_unused=*/true);
    });
    const auto wide = [](const at::Tensor& t) { return t.detach().to(at::kDouble); };
    EXPECT_FALSE(grads[1].defined());
    const bool exact = dtype == at::kFloat || cpu::CanMultiply(grad.t(), x, accumulated);
    EXPECT_LE(RelativeError(accumulated, wide(before) + at::matmul(wide(grad).t(), wide(x))), exact ? 2e-6 : 1e-2);
    EXPECT_LE(RelativeError(grads[0], at::matmul(wide(grad), wide(weight))), dtype == at::kFloat ? 2e-6 : 1e-2);
    EXPECT_LE(RelativeError(grads[2], wide(grad).sum(0)), dtype == at::kFloat ? 2e-6 : 1e-2);
  }
}

// Gradients are the same bits, and the input is not kept: backward asks for it, once, and only if a weight is trained.
TEST_P(LinearTest, RemadeInput_IsNotKept) {
  const auto [tokens, inputs, outputs] = GetParam();
  at::manual_seed(3);
  const at::Tensor before = at::randn({tokens, inputs}).requires_grad_(), grad = at::randn({tokens, outputs});
  at::Tensor weight = at::randn({outputs, inputs}).requires_grad_();
  const at::Tensor frozen = weight.detach(), a_RI = at::randn({4, inputs}).requires_grad_(),
                   b_OR = at::randn({outputs, 4}).requires_grad_();
  int made = 0;
  const auto gradients = [&](const at::Tensor& weight, bool remade, const std::vector<at::Tensor>& of) {
    at::Tensor x = before * 2;
    const c10::weak_intrusive_ptr<at::TensorImpl> alive(x.getIntrusivePtr());
    const auto remake = [&] {
      ++made;
      return before.detach() * 2;
    };
    const std::vector<LowRankUpdate> updates = {{.a_RI = a_RI, .b_OR = b_OR}};
    const at::Tensor y = Linear(remade ? LinearInput(x, remake) : x, weight, {}, {},
                                of.size() > 2 ? updates : std::vector<LowRankUpdate>());
    x = at::Tensor();
    EXPECT_EQ(alive.expired(), remade);
    return torch::autograd::grad({y}, of, {grad});
  };
  for (const auto& of : {std::vector{before, weight}, std::vector{before, a_RI, b_OR}}) {
    const at::Tensor& of_map = of.size() > 2 ? frozen : weight;
    const auto kept = gradients(of_map, false, of), remade = gradients(of_map, true, of);
    for (size_t i = 0; i < of.size(); ++i) EXPECT_TRUE(at::equal(kept[i], remade[i]));
  }
  EXPECT_EQ(made, 2);
  gradients(frozen, true, {before});
  EXPECT_EQ(made, 2) << "no weight is trained";
}

INSTANTIATE_TEST_SUITE_P(Shapes, LinearTest,
                         testing::Values(Shape{1, 2, 3}, Shape{65, 33, 130}, Shape{300, 520, 64}, Shape{530, 96, 257}));

struct UpdateShape {
  int64_t tokens, inputs, rank;
};

class LinearWithUpdatesTest : public testing::TestWithParam<UpdateShape> {};

// Updates of some rows, two of them of the same.
TEST_P(LinearWithUpdatesTest, OutputAndGradients_EqualReference) {
  const auto [tokens, inputs, rank] = GetParam();
  struct Place {
    int64_t row, rows;
    double scale;
  };
  const std::vector<Place> places = {{0, 64, 2.0}, {64, 32, 0.5}, {60, 50, 1.5}};
  const auto at_place = [&](const std::vector<at::Tensor>& in, size_t i) {
    return LowRankUpdate{.a_RI = in[3 + 2 * i], .b_OR = in[4 + 2 * i], .scale = places[i].scale, .row = places[i].row};
  };
  const Operator op = [&](const auto& in) {
    return Linear(in[0], in[1], in[2], {}, {at_place(in, 0), at_place(in, 1), at_place(in, 2)});
  };
  const Operator reference = [&](const auto& in) {
    at::Tensor weight = in[1];
    for (size_t i = 0; i < places.size(); ++i) {
      const LowRankUpdate update = at_place(in, i);
      const at::Tensor rows = at::matmul(update.b_OR, update.a_RI) * update.scale;
      weight = weight + at::constant_pad_nd(rows, {0, 0, update.row, weight.size(0) - update.row - rows.size(0)});
    }
    return at::linear(in[0], weight, in[2]);
  };
  at::manual_seed(4);
  std::vector<at::Tensor> in = {at::randn({tokens, inputs}), at::randn({120, inputs}), at::randn({120})};
  for (const Place& place : places) {
    in.insert(in.end(), {at::randn({rank, inputs}), at::randn({place.rows, rank})});
  }
  ExpectEqualsReference(op, reference, in, at::kFloat, 2e-6);
  ExpectEqualsReference(op, reference, in, at::kBFloat16, 1e-2);
}

INSTANTIATE_TEST_SUITE_P(Shapes, LinearWithUpdatesTest,
                         testing::Values(UpdateShape{70, 40, 4}, UpdateShape{1, 32, 1}, UpdateShape{70, 96, 16},
                                         UpdateShape{131, 64, 40}));

// As in training: the weight is frozen, and what autograd would return is added to buffers.
TEST(LinearWithUpdates, BuffersGetWhatAutogradWouldReturn) {
  at::manual_seed(5);
  const at::Tensor x = at::randn({30, 20}).requires_grad_(), weight = at::randn({90, 20}), grad = at::randn({30, 90});
  std::vector<LowRankUpdate> updates = {{.a_RI = at::randn({4, 20}), .b_OR = at::randn({30, 4}), .scale = 0.7},
                                        {.a_RI = at::randn({2, 20}), .b_OR = at::randn({70, 2}), .row = 20}};
  for (size_t some = 1; some <= updates.size(); ++some) {
    const std::vector<LowRankUpdate> first(updates.begin(), updates.begin() + static_cast<std::ptrdiff_t>(some));
    std::vector<at::Tensor> of = {x}, buffers;
    std::vector<LowRankUpdate> buffered = first;
    for (LowRankUpdate& update : buffered) {
      of.insert(of.end(), {update.a_RI.requires_grad_(), update.b_OR.requires_grad_()});
      update.grad_a_RI = at::ones(update.a_RI.sizes());
      update.grad_b_OR = at::ones(update.b_OR.sizes());
      buffers.insert(buffers.end(), {update.grad_a_RI, update.grad_b_OR});
    }
    const auto expected = torch::autograd::grad({Linear(x, weight, {}, {}, first)}, of, {grad});
    const auto grads = torch::autograd::grad({Linear(x, weight, {}, {}, buffered)}, of, {grad}, std::nullopt, false,
                                             /*allow_unused=*/true);
    EXPECT_TRUE(at::equal(grads[0], expected[0]));
    for (size_t i = 1; i < of.size(); ++i) {
      EXPECT_FALSE(grads[i].defined());
      EXPECT_LE(RelativeError(buffers[i - 1], expected[i] + 1), 2e-6);
    }
  }
}

TEST(Linear, FrozenWeight_GetsNoGradient) {
  const at::Tensor x = at::randn({3, 4}).requires_grad_(), weight = at::randn({5, 4});
  const at::Tensor accumulated = at::zeros({5, 4});
  const auto grads = torch::autograd::grad({Linear(x, weight, {}, accumulated)}, {x}, {at::ones({3, 5})});
  EXPECT_LE(RelativeError(grads[0], at::matmul(at::ones({3, 5}), weight)), 1e-6);
  EXPECT_EQ(accumulated.abs().max().item<float>(), 0);
}

}  // namespace
}  // namespace temper::ops
