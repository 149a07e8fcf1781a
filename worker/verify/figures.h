// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

// Legend: T positions, V vocabulary.

namespace temper {

// How far logits are from those of a reference, over some positions. Everything is computed in fp64 (in fp32, KL's own
// error is larger than the bound). A NaN on either side makes its figure NaN, which is within no bound.
struct LogitFigures {
  int64_t positions = 0;
  double kl_sum = 0;           // KL(reference ‖ other)
  double max_kl = 0;           // of a position
  double max_logit_error = 0;  // ‖other − reference‖ / ‖reference‖ of a position's logits
  int64_t same_top1 = 0;       // positions whose largest logit is the same token's

  double mean_kl() const { return positions == 0 ? 0 : kl_sum / static_cast<double>(positions); }
  double top1_agreement() const {
    return positions == 0 ? 1 : static_cast<double>(same_top1) / static_cast<double>(positions);
  }
};

// Throws c10::Error when the shapes differ.
LogitFigures CompareLogits(const at::Tensor& reference_TV, const at::Tensor& other_TV);

// Of the positions of both.
LogitFigures Merged(const LogitFigures& first, const LogitFigures& second);

// ‖other − reference‖ / max(‖reference‖, floor) over all elements; 0 when both sides of the fraction are.
double RelativeError(const at::Tensor& reference, const at::Tensor& other, double floor = 0);

// L2 norm, in fp64.
double Norm(const at::Tensor& tensor);

}  // namespace temper
