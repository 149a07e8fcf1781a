// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/cpu/weight_gradient_kernel.h"

#include "worker/ops/cpu/brgemm.h"
#include "worker/ops/cpu/pack.h"

namespace temper::ops::cpu::TEMPER_ISA {
namespace {

void PackGrad(const WeightGradient& g, int64_t begin, Bf16* work) {
  const int64_t rows = Smaller(kGradientRows, g.outputs - begin);
  PackLeftTransposed({g.grad + begin, g.grad_stride}, g.tokens, rows, g.padded, g.grad_left + begin * g.padded, work);
}

void PackX(const WeightGradient& g, int64_t begin) {
  const Rows<Bf16> x = {g.x + begin * g.x_stride, g.x_stride};
  PackRight(x, Smaller(kTokenGrain, g.tokens - begin), g.inputs, kTokenGrain, g.x_right + begin * g.inputs);
}

void AddTile(const WeightGradient& g, int64_t row, int64_t column) {
  const int64_t rows = Smaller(kGradientRows, g.outputs - row), columns = Smaller(kGradientColumns, g.inputs - column);
  for (int64_t token = 0; token < g.padded; token += kGradientTokens) {
    const int64_t tokens = Smaller(kGradientTokens, g.padded - token);
    Brgemm({rows, columns, tokens, g.padded, g.inputs, g.inputs}, /*add=*/true, g.grad_left + row * g.padded + token,
           g.x_right + token * g.inputs + 2 * column, g.to_OI + row * g.inputs + column);
  }
}

}  // namespace

const WeightGradientKernels kWeightGradient = {PackGrad, PackX, AddTile};

}  // namespace temper::ops::cpu::TEMPER_ISA
