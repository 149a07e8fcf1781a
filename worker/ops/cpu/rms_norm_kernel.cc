// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/cpu/rms_norm_kernel.h"

#include "worker/ops/cpu/simd.h"

namespace temper::ops::cpu::TEMPER_ISA {
namespace {

TEMPER_INLINE float InverseRoot(float value) { return 1.0f / __builtin_sqrtf(value); }

// Floats as they are after they were kept in Element.
TEMPER_INLINE Floats Rounded(Floats value, const float*) { return value; }
TEMPER_INLINE Floats Rounded(Floats value, const Bf16*) { return BitCast<Floats>(RoundedWords(value) & 0xffff0000u); }

template <typename Element>
void Forward(const RmsNormRows& rows, int64_t begin, int64_t end) {
  const auto* const weight = static_cast<const Element*>(rows.weight);
  for (int64_t row = begin; row < end; ++row) {
    const int64_t first = row * rows.width;
    const auto* x = static_cast<const Element*>(rows.x) + first;
    auto* const y = static_cast<Element*>(rows.y) + first;
    if (rows.update != nullptr) {
      const auto* const update = static_cast<const Element*>(rows.update) + first;
      auto* const sum = static_cast<Element*>(rows.sum) + first;
      ForEachVector(rows.width, [&](int64_t i, int64_t count) {
        StoreSome(sum + i, LoadSome(x + i, count) + LoadSome(update + i, count), count);
      });
      x = sum;
    }
    Floats squares = {};
    ForEachVector(rows.width, [&](int64_t i, int64_t count) {
      const Floats value = LoadSome(x + i, count);
      squares += value * value;
    });
    const float scale = InverseRoot(Sum(squares) / static_cast<float>(rows.width) + rows.epsilon);
    rows.scale[row] = scale;
    ForEachVector(rows.width, [&](int64_t i, int64_t count) {
      Floats normed = LoadSome(x + i, count) * scale;
      if (rows.rounds_twice) normed = Rounded(normed, x);
      StoreSome(y + i, normed * (LoadSome(weight + i, count) + rows.weight_offset), count);
    });
  }
}

// With n = x·s and the weight w: dx = s · (g·w − n · mean(g·w·n)), dw = Σ g·n.
template <typename Element>
void Backward(const RmsNormRows& rows, int64_t begin, int64_t end) {
  const auto* const weight = static_cast<const Element*>(rows.weight);
  if (rows.grad_weight != nullptr) {
    for (int64_t i = 0; i < rows.width; ++i) rows.grad_weight[i] = 0;
  }
  for (int64_t row = begin; row < end; ++row) {
    const int64_t first = row * rows.width;
    const auto* const x = static_cast<const Element*>(rows.x) + first;
    const auto* const grad_y = static_cast<const Element*>(rows.grad_y) + first;
    const float scale = rows.scale[row];
    Floats products = {};
    ForEachVector(rows.width, [&](int64_t i, int64_t count) {
      const Floats product = LoadSome(grad_y + i, count) * (LoadSome(x + i, count) * scale);
      products += product * (LoadSome(weight + i, count) + rows.weight_offset);
      if (rows.grad_weight == nullptr) return;
      StoreSome(rows.grad_weight + i, LoadSome(rows.grad_weight + i, count) + product, count);
    });
    if (rows.grad_x == nullptr) continue;
    const float mean = Sum(products) / static_cast<float>(rows.width);
    auto* const grad_x = static_cast<Element*>(rows.grad_x) + first;
    const auto* const grad_sum = rows.grad_sum == nullptr ? nullptr : static_cast<const Element*>(rows.grad_sum) + first;
    ForEachVector(rows.width, [&](int64_t i, int64_t count) {
      const Floats weighted = LoadSome(grad_y + i, count) * (LoadSome(weight + i, count) + rows.weight_offset);
      Floats grad = (weighted - LoadSome(x + i, count) * scale * mean) * scale;
      if (grad_sum != nullptr) grad += LoadSome(grad_sum + i, count);
      StoreSome(grad_x + i, grad, count);
    });
  }
}

void ForwardAny(const RmsNormRows& rows, int64_t begin, int64_t end) {
  rows.bf16 ? Forward<Bf16>(rows, begin, end) : Forward<float>(rows, begin, end);
}

void BackwardAny(const RmsNormRows& rows, int64_t begin, int64_t end) {
  rows.bf16 ? Backward<Bf16>(rows, begin, end) : Backward<float>(rows, begin, end);
}

}  // namespace

const RmsNormKernels kRmsNorm = {ForwardAny, BackwardAny};

}  // namespace temper::ops::cpu::TEMPER_ISA
