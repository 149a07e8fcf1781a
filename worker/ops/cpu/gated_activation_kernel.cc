// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/cpu/gated_activation_kernel.h"

#include "worker/ops/cpu/simd.h"

namespace temper::ops::cpu::TEMPER_ISA {
namespace {

// An activation has
//   Floats Value(gate), and Floats Slope(gate), its derivative;
//   Floats Other(up), what the other half contributes, and Floats OtherSlope(up).
struct PlainOther {
  TEMPER_INLINE Floats Other(Floats up) const { return up; }
  TEMPER_INLINE Floats OtherSlope(Floats) const { return Broadcast(1.0f); }
};

struct Silu : PlainOther {
  TEMPER_INLINE Floats Value(Floats gate) const { return gate * Sigmoid(gate); }
  TEMPER_INLINE Floats Slope(Floats gate) const {
    const Floats sigmoid = Sigmoid(gate);
    return sigmoid * (1.0f + gate * (1.0f - sigmoid));
  }
};

// 0.5·g·(1 + tanh(√(2/π)·(g + 0.044715·g³))).
struct GeluTanh : PlainOther {
  static constexpr float kRoot = 0.7978845608028654f, kCubic = 0.044715f;
  TEMPER_INLINE Floats Inner(Floats gate) const { return kRoot * (gate + kCubic * gate * gate * gate); }
  TEMPER_INLINE Floats Value(Floats gate) const { return 0.5f * gate * (1.0f + Tanh(Inner(gate))); }
  TEMPER_INLINE Floats Slope(Floats gate) const {
    const Floats tanh = Tanh(Inner(gate));
    const Floats inner_slope = kRoot * (1.0f + 3.0f * kCubic * gate * gate);
    return 0.5f * (1.0f + tanh) + 0.5f * gate * (1.0f - tanh * tanh) * inner_slope;
  }
};

struct ClampedSwiGlu {
  static constexpr float kSharpness = 1.702f, kLimit = 7.0f;
  TEMPER_INLINE Floats Value(Floats gate) const {
    const Floats clamped = Min(gate, Broadcast(kLimit));
    return clamped * Sigmoid(clamped * kSharpness);
  }
  TEMPER_INLINE Floats Slope(Floats gate) const {
    const Floats clamped = Min(gate, Broadcast(kLimit)), sigmoid = Sigmoid(clamped * kSharpness);
    const Floats slope = sigmoid * (1.0f + clamped * kSharpness * (1.0f - sigmoid));
    return gate <= kLimit ? slope : Floats{};  // nothing comes through the clamp
  }
  TEMPER_INLINE Floats Other(Floats up) const { return Max(Min(up, Broadcast(kLimit)), Broadcast(-kLimit)) + 1.0f; }
  TEMPER_INLINE Floats OtherSlope(Floats up) const {
    return (up <= kLimit) & (up >= -kLimit) ? Broadcast(1.0f) : Floats{};
  }
};

template <typename Element, typename Gate>
void ForwardRows(const GatedRows& rows, int64_t begin, int64_t end, const Gate& activation) {
  for (int64_t row = begin; row < end; ++row) {
    const auto* const gate = static_cast<const Element*>(rows.gate_up) + row * 2 * rows.width;
    const auto* const up = gate + rows.width;
    auto* const y = static_cast<Element*>(rows.y) + row * rows.width;
    ForEachVector(rows.width, [&](int64_t i, int64_t count) {
      StoreSome(y + i, activation.Value(LoadSome(gate + i, count)) * activation.Other(LoadSome(up + i, count)), count);
    });
  }
}

template <typename Element, typename Gate>
void BackwardRows(const GatedRows& rows, int64_t begin, int64_t end, const Gate& activation) {
  for (int64_t row = begin; row < end; ++row) {
    const int64_t first = row * 2 * rows.width;
    const auto* const gate_row = static_cast<const Element*>(rows.gate_up) + first;
    const auto* const grad_row = static_cast<const Element*>(rows.grad_y) + row * rows.width;
    auto* const to = static_cast<Element*>(rows.grad_gate_up) + first;
    ForEachVector(rows.width, [&](int64_t i, int64_t count) {
      const Floats gate = LoadSome(gate_row + i, count), up = LoadSome(gate_row + rows.width + i, count);
      const Floats grad = LoadSome(grad_row + i, count);
      StoreSome(to + i, grad * activation.Other(up) * activation.Slope(gate), count);
      StoreSome(to + rows.width + i, grad * activation.Value(gate) * activation.OtherSlope(up), count);
    });
  }
}

// use(activation) of the one that the rows name.
template <typename Use>
void WithActivation(const GatedRows& rows, const Use& use) {
  switch (rows.activation) {
    case Activation::kSilu:
      return use(Silu{});
    case Activation::kGeluTanh:
      return use(GeluTanh{});
    case Activation::kClampedSwiGlu:
      return use(ClampedSwiGlu{});
    case Activation::kGelu:
      __builtin_trap();
  }
}

void Forward(const GatedRows& rows, int64_t begin, int64_t end) {
  WithActivation(rows, [&](const auto& activation) {
    rows.bf16 ? ForwardRows<Bf16>(rows, begin, end, activation) : ForwardRows<float>(rows, begin, end, activation);
  });
}

void Backward(const GatedRows& rows, int64_t begin, int64_t end) {
  WithActivation(rows, [&](const auto& activation) {
    rows.bf16 ? BackwardRows<Bf16>(rows, begin, end, activation) : BackwardRows<float>(rows, begin, end, activation);
  });
}

}  // namespace

const GatedActivationKernels kGatedActivation = {Forward, Backward};

}  // namespace temper::ops::cpu::TEMPER_ISA
