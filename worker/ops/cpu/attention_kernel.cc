// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/cpu/attention_kernel.h"

namespace temper::ops::cpu::TEMPER_ISA {
namespace {

// use(AttentionKernel) of the combination that is asked for.
template <typename Element, typename Mask, typename Use>
void WithScore(const AttentionHead& head, const AttentionScores& scores, const Mask& mask, const Use& use) {
  if (scores.softcap > 0) {
    const SoftcappedScore score = {scores.scale, scores.softcap};
    use(AttentionKernel<Element, Mask, SoftcappedScore>(head, mask, score));
  } else {
    use(AttentionKernel<Element, Mask, ScaledScore>(head, mask, {scores.scale}));
  }
}

template <typename Element, typename Use>
void WithMask(const AttentionHead& head, const AttentionScores& scores, const Use& use) {
  if (scores.window > 0 && scores.window < head.length) {
    WithScore<Element>(head, scores, CausalWindowMask{scores.window}, use);
  } else {
    WithScore<Element>(head, scores, CausalMask{}, use);
  }
}

template <typename Use>
void WithKernel(const AttentionHead& head, const AttentionScores& scores, const Use& use) {
  if (head.bf16) {
    WithMask<Bf16>(head, scores, use);
  } else {
    WithMask<float>(head, scores, use);
  }
}

void Forward(const AttentionHead& head, const AttentionScores& scores, int64_t first, int64_t end, char* scratch) {
  WithKernel(head, scores, [&](const auto& kernel) { kernel.Forward(first, end, scratch); });
}

void Backward(const AttentionHead& head, const AttentionScores& scores, char* scratch) {
  WithKernel(head, scores, [&](const auto& kernel) { kernel.Backward(scratch); });
}

template <typename Element>
using AnyKernel = AttentionKernel<Element, CausalMask, ScaledScore>;

int64_t ForwardScratch(int64_t length, int64_t width, bool bf16) {
  return bf16 ? AnyKernel<Bf16>::ForwardScratch(length, width) : AnyKernel<float>::ForwardScratch(length, width);
}

int64_t BackwardScratch(int64_t length, int64_t width, bool bf16) {
  return bf16 ? AnyKernel<Bf16>::BackwardScratch(length, width) : AnyKernel<float>::BackwardScratch(length, width);
}

template <typename Element>
void SumGroups(const HeadGroups& groups, int64_t first_token, int64_t end_token) {
  for (int64_t head = first_token * groups.kv_heads; head < end_token * groups.kv_heads; ++head) {
    const float* const from = groups.grad + head * groups.group * groups.width;
    auto* const to = static_cast<Element*>(groups.to) + head * groups.width;
    ForEachVector(groups.width, [&](int64_t i, int64_t count) {
      Floats sum = LoadSome(from + i, count);
      for (int64_t g = 1; g < groups.group; ++g) sum += LoadSome(from + g * groups.width + i, count);
      StoreSome(to + i, sum, count);
    });
  }
}

void SumGroupsOfAny(const HeadGroups& groups, int64_t first_token, int64_t end_token) {
  groups.bf16 ? SumGroups<Bf16>(groups, first_token, end_token) : SumGroups<float>(groups, first_token, end_token);
}

}  // namespace

const AttentionKernels kAttention = {Forward, Backward, ForwardScratch, BackwardScratch, SumGroupsOfAny};

}  // namespace temper::ops::cpu::TEMPER_ISA
