// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/cpu/rms_norm_kernel.h"

#include "worker/ops/cpu/rotate.h"

namespace temper::ops::cpu::TEMPER_ISA {
namespace {

TEMPER_INLINE float InverseRoot(float value) { return 1.0f / __builtin_sqrtf(value); }

// Floats as they are after they were kept in Element.
TEMPER_INLINE Floats Rounded(Floats value, const float*) { return value; }
TEMPER_INLINE Floats Rounded(Floats value, const Bf16*) { return BitCast<Floats>(RoundedWords(value) & 0xffff0000u); }

template <typename Element>
const Element* RowOfX(const RmsNormRows& rows, int64_t row) {
  const int64_t token = row / rows.heads, head = row % rows.heads;
  return static_cast<const Element*>(rows.x) + token * rows.token_stride + head * rows.head_stride;
}

template <typename Element>
const Element* Added(const Element* x, const RmsNormRows& rows, int64_t first) {
  const auto* const update = static_cast<const Element*>(rows.update) + first;
  auto* const sum = static_cast<Element*>(rows.sum) + first;
  ForEachVector(rows.width, [&](int64_t i, int64_t count) {
    StoreSome(sum + i, LoadSome(x + i, count) + LoadSome(update + i, count), count);
  });
  return sum;
}

template <typename From, typename To>
void RotateRow(const RmsNormRows& rows, int64_t row, const From* from, float direction, To* to) {
  const int64_t angles = row / rows.heads * rows.half;
  RotateHead(from, rows.cos + angles, rows.sin + angles, rows.half, rows.width, direction, to);
}

template <typename Element>
void Forward(const RmsNormRows& rows, int64_t begin, int64_t end) {
  const auto* const weight = static_cast<const Element*>(rows.weight);
  for (int64_t row = begin; row < end; ++row) {
    const Element* x = RowOfX<Element>(rows, row);
    if (rows.update != nullptr) x = Added(x, rows, row * rows.width);
    Floats squares = {};
    ForEachVector(rows.width, [&](int64_t i, int64_t count) {
      const Floats value = LoadSome(x + i, count);
      squares += value * value;
    });
    const float scale = InverseRoot(Sum(squares) / static_cast<float>(rows.width) + rows.epsilon);
    rows.scale[row] = scale;
    const auto normed = [&](int64_t i, int64_t count) {
      Floats value = LoadSome(x + i, count) * scale;
      if (rows.rounds_twice) value = Rounded(value, x);
      return value * (LoadSome(weight + i, count) + rows.weight_offset);
    };
    auto* const y = static_cast<Element*>(rows.y) + row * rows.width;
    if (rows.half == 0) {
      ForEachVector(rows.width, [&](int64_t i, int64_t count) { StoreSome(y + i, normed(i, count), count); });
      continue;
    }
    float head[kMaxRotatedWidth];  // rounded, as if it were kept
    ForEachVector(rows.width,
                  [&](int64_t i, int64_t count) { StoreSome(head + i, Rounded(normed(i, count), x), count); });
    RotateRow(rows, row, head, 1, y);
  }
}

// With n = x·s and the weight w: dx = s · (g·w − n · mean(g·w·n)), dw = Σ g·n.
template <typename Element, typename Gradient>
void BackwardRow(const RmsNormRows& rows, int64_t row, const Gradient* grad_y) {
  const auto* const weight = static_cast<const Element*>(rows.weight);
  const Element* const x = RowOfX<Element>(rows, row);
  const float scale = rows.scale[row];
  Floats products = {};
  ForEachVector(rows.width, [&](int64_t i, int64_t count) {
    const Floats product = LoadSome(grad_y + i, count) * (LoadSome(x + i, count) * scale);
    products += product * (LoadSome(weight + i, count) + rows.weight_offset);
    if (rows.grad_weight == nullptr) return;
    StoreSome(rows.grad_weight + i, LoadSome(rows.grad_weight + i, count) + product, count);
  });
  if (rows.grad_x == nullptr) return;
  const int64_t first = row * rows.width;
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

template <typename Element>
void Backward(const RmsNormRows& rows, int64_t begin, int64_t end) {
  if (rows.grad_weight != nullptr) {
    for (int64_t i = 0; i < rows.width; ++i) rows.grad_weight[i] = 0;
  }
  for (int64_t row = begin; row < end; ++row) {
    const auto* const grad_y = static_cast<const Element*>(rows.grad_y) + row * rows.width;
    if (rows.half == 0) {
      BackwardRow<Element>(rows, row, grad_y);
      continue;
    }
    float head[kMaxRotatedWidth];
    RotateRow(rows, row, grad_y, -1, head);
    BackwardRow<Element>(rows, row, head);
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
