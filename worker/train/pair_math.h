// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <vector>

#include "worker/data/micro_batch.h"

namespace temper {

// What losses of pairs compute with: a number of each answer, in fp64 on the CPU.

inline double LogSigmoid(double x) { return std::min(x, 0.0) - std::log1p(std::exp(-std::abs(x))); }
inline double Sigmoid(double x) { return std::exp(LogSigmoid(x)); }

inline double CountPairs(const MicroBatch& batch) {
  return static_cast<double>(std::ssize(batch.document_starts) / 2);  // documents + 1 entries, or none
}

inline std::vector<double> ToDoubles(const at::Tensor& values_S) {
  const at::Tensor doubles_S = values_S.to(at::kCPU, at::kDouble).contiguous();
  return {doubles_S.const_data_ptr<double>(), doubles_S.const_data_ptr<double>() + doubles_S.numel()};
}

}  // namespace temper
