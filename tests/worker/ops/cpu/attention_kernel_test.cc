// SPDX-License-Identifier: Apache-2.0
// Masks that the library does not have, put together with its kernel.
#include "worker/ops/cpu/attention_kernel.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <limits>

#include "tests/worker/ops/reference_check.h"

namespace temper::ops::cpu::portable {
namespace {

// Every query sees the first keys, as in a prefix language model, and beside them what causality allows.
struct PrefixMask {
  int64_t prefix;

  Visibility Of(int64_t first_query, int64_t last_query, int64_t first_key, int64_t last_key) const {
    if (last_key < prefix) return Visibility::kAll;
    const Visibility causal = CausalMask{}.Of(first_query, last_query, first_key, last_key);
    return causal == Visibility::kNone && first_key < prefix ? Visibility::kSome : causal;
  }
  Ints Visible(Ints queries, int32_t key) const {
    return (queries >= key) | (key < prefix ? Broadcast(int32_t{-1}) : Ints{});
  }
  at::Tensor Dense(int64_t length) const {
    at::Tensor visible = at::ones({length, length}, at::kBool).tril();
    visible.narrow(1, 0, prefix).fill_(true);
    return visible;
  }
};

// Causal, but the first queries see nothing at all.
struct LateMask {
  int64_t first;

  Visibility Of(int64_t first_query, int64_t last_query, int64_t first_key, int64_t last_key) const {
    if (last_query < first || first_key > last_query) return Visibility::kNone;
    return Visibility::kSome;
  }
  Ints Visible(Ints queries, int32_t key) const { return (queries >= key) & (queries >= static_cast<int32_t>(first)); }
  at::Tensor Dense(int64_t length) const {
    at::Tensor visible = at::ones({length, length}, at::kBool).tril();
    visible.narrow(0, 0, first).fill_(false);
    return visible;
  }
};

at::Tensor Scratch(int64_t bytes) { return at::full({bytes + 64}, 255, at::kByte); }
char* Aligned(const at::Tensor& memory) {
  auto* const begin = static_cast<char*>(memory.mutable_data_ptr());
  return begin + (64 - reinterpret_cast<uintptr_t>(begin) % 64);
}

// Output and gradients of the kernel and of the definition, on one head.
template <typename Mask>
void ExpectEqualsDefinition(const Mask& mask, int64_t length, int64_t width) {
  at::manual_seed(1);
  const auto random = [&] { return at::randn({length, width}); };
  const at::Tensor q = random(), k = random(), v = random(), grad_out = random();
  const at::Tensor out = at::empty_like(q), logsumexp = at::empty({length}), delta = at::empty({length});
  const at::Tensor grad_q = at::empty_like(q), grad_k = at::empty_like(q), grad_v = at::empty_like(q);
  AttentionHead head = {.length = length, .width = width};
  head.q = q.const_data_ptr();
  head.k = k.const_data_ptr();
  head.v = v.const_data_ptr();
  head.out = out.mutable_data_ptr();
  head.grad_out = grad_out.const_data_ptr();
  head.logsumexp = logsumexp.mutable_data_ptr<float>();
  head.delta = delta.mutable_data_ptr<float>();
  head.grad_q = grad_q.mutable_data_ptr();
  head.grad_k = grad_k.mutable_data_ptr<float>();
  head.grad_v = grad_v.mutable_data_ptr<float>();
  head.q_stride = head.k_stride = head.v_stride = head.out_stride = head.grad_q_stride = head.grad_kv_stride = width;
  using Kernel = AttentionKernel<float, Mask, ScaledScore>;
  const Kernel kernel(head, mask, {0.25f});
  kernel.Forward(0, length, Aligned(Scratch(Kernel::ForwardScratch(length, width))));
  kernel.Backward(Aligned(Scratch(Kernel::BackwardScratch(length, width))));

  std::vector<at::Tensor> in;
  for (const at::Tensor& x : {q, k, v}) in.push_back(x.to(at::kDouble).requires_grad_());
  const at::Tensor visible = mask.Dense(length);
  const at::Tensor scores = (at::matmul(in[0], in[1].t()) * 0.25)
                                .masked_fill(visible.logical_not(), -std::numeric_limits<double>::infinity());
  // A row without a key is zero, not the NaN of an empty softmax.
  const at::Tensor weights = scores.softmax(-1).masked_fill(visible.logical_not(), 0);
  const at::Tensor expected = at::matmul(weights, in[2]);
  const auto seen = visible.any(1).nonzero().squeeze(1);
  const auto grads =
      torch::autograd::grad({expected.index_select(0, seen)}, in, {grad_out.to(at::kDouble).index_select(0, seen)});
  EXPECT_LE(RelativeError(out, expected), 2e-6);
  const auto finite = [](const at::Tensor& x) { return at::nan_to_num(x, 0); };
  EXPECT_LE(RelativeError(grad_q, finite(grads[0])), 2e-6);
  EXPECT_LE(RelativeError(grad_k, finite(grads[1])), 2e-6);
  EXPECT_LE(RelativeError(grad_v, finite(grads[2])), 2e-6);
}

TEST(AttentionKernel, MaskThatTheLibraryDoesNotHave_EqualsDefinition) {
  for (const int64_t length : {1, 70, 200}) {
    ExpectEqualsDefinition(PrefixMask{std::min<int64_t>(length, 67)}, length, 32);
  }
}

TEST(AttentionKernel, QueriesThatSeeNothing_AreZeroAndGetNoGradient) {
  ExpectEqualsDefinition(LateMask{5}, 90, 16);
  ExpectEqualsDefinition(LateMask{70}, 150, 16);
}

}  // namespace
}  // namespace temper::ops::cpu::portable
