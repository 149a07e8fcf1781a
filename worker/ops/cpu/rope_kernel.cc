// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/cpu/rope_kernel.h"

#include "worker/ops/cpu/rotate.h"

namespace temper::ops::cpu::TEMPER_ISA {
namespace {

template <typename Element>
void Rotate(const RopeRows& rows, int64_t begin, int64_t end) {
  for (int64_t token = begin; token < end; ++token) {
    const float *const cos = rows.cos + token * rows.half, *const sin = rows.sin + token * rows.half;
    for (int64_t head = 0; head < rows.heads; ++head) {
      const auto* const x = static_cast<const Element*>(rows.x) + token * rows.token_stride + head * rows.head_stride;
      auto* const y = static_cast<Element*>(rows.y) + (token * rows.heads + head) * rows.width;
      RotateHead(x, cos, sin, rows.half, rows.width, rows.direction, y);
    }
  }
}

void RotateAny(const RopeRows& rows, int64_t begin, int64_t end) {
  rows.bf16 ? Rotate<Bf16>(rows, begin, end) : Rotate<float>(rows, begin, end);
}

}  // namespace

const RopeKernels kRope = {RotateAny};

}  // namespace temper::ops::cpu::TEMPER_ISA
