// SPDX-License-Identifier: Apache-2.0
#include "worker/verify/figures.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

namespace temper {
namespace {

// Rows that are compared at once: a few copies of them exist in fp64.
constexpr int64_t kChunk = 64;

// std::max drops a NaN that comes second.
double MaxOrNan(double first, double second) { return std::isnan(second) ? second : std::max(first, second); }

LogitFigures CompareChunk(const at::Tensor& reference_TV, const at::Tensor& other_TV) {
  const at::Tensor reference = reference_TV.to(at::kDouble), other = other_TV.to(at::kDouble);
  const at::Tensor logp_TV = reference.log_softmax(-1);
  const at::Tensor kl_T = (logp_TV.exp() * (logp_TV - other.log_softmax(-1))).sum(-1);
  const at::Tensor error_T =
      at::linalg_vector_norm(other - reference, 2, {-1}) / at::linalg_vector_norm(reference, 2, {-1});
  return {.positions = reference.size(0),
          .kl_sum = kl_T.sum().item<double>(),
          .max_kl = kl_T.max().item<double>(),
          .max_logit_error = error_T.max().item<double>(),
          .same_top1 = reference.argmax(-1).eq(other.argmax(-1)).sum().item<int64_t>()};
}

}  // namespace

LogitFigures CompareLogits(const at::Tensor& reference_TV, const at::Tensor& other_TV) {
  TORCH_CHECK(reference_TV.sizes() == other_TV.sizes(), "the reference's logits are ", reference_TV.sizes(),
              ", the model's ", other_TV.sizes());
  const at::NoGradGuard no_grad;
  LogitFigures figures;
  for (int64_t row = 0; row < reference_TV.size(0); row += kChunk) {
    const int64_t rows = std::min(kChunk, reference_TV.size(0) - row);
    figures = Merged(figures, CompareChunk(reference_TV.narrow(0, row, rows), other_TV.narrow(0, row, rows)));
  }
  return figures;
}

LogitFigures Merged(const LogitFigures& first, const LogitFigures& second) {
  return {.positions = first.positions + second.positions,
          .kl_sum = first.kl_sum + second.kl_sum,
          .max_kl = MaxOrNan(first.max_kl, second.max_kl),
          .max_logit_error = MaxOrNan(first.max_logit_error, second.max_logit_error),
          .same_top1 = first.same_top1 + second.same_top1};
}

double RelativeError(const at::Tensor& reference, const at::Tensor& other, double floor) {
  TORCH_CHECK(reference.sizes() == other.sizes(), "a tensor of the reference is ", reference.sizes(), ", the model's ",
              other.sizes());
  const double difference = Norm(other.detach().to(at::kDouble) - reference.detach().to(at::kDouble));
  if (difference == 0) return 0;
  return difference / std::max(Norm(reference), floor);
}

double Norm(const at::Tensor& tensor) {
  return at::linalg_vector_norm(tensor.detach(), 2, at::OptionalIntArrayRef(), false, at::kDouble).item<double>();
}

}  // namespace temper
