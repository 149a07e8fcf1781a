// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/rope.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "worker/ops/cpu/operators.h"
#include "worker/ops/cuda_dispatch.h"

namespace temper::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor DefaultFrequencies(double theta, int64_t head_dim) {
  const at::Tensor exponent_h = at::arange(0, head_dim, 2, at::kLong).to(at::kFloat).div_(head_dim);
  return at::pow(at::Scalar(theta), exponent_h).reciprocal_();
}

at::Tensor Llama3Frequencies(const RopeConfig& config, const at::Tensor& base_h) {
  const double longest = config.original_max_positions / config.low_freq_factor;
  const double shortest = config.original_max_positions / config.high_freq_factor;
  const at::Tensor wavelength_h = (2 * std::numbers::pi) / base_h;
  const at::Tensor scaled_h = at::where(wavelength_h > longest, base_h / config.factor, base_h);
  const at::Tensor smooth_h = (config.original_max_positions / wavelength_h - config.low_freq_factor) /
                              (config.high_freq_factor - config.low_freq_factor);
  const at::Tensor ramp_h = (1 - smooth_h) * scaled_h / config.factor + smooth_h * scaled_h;
  const at::Tensor between_h = wavelength_h.ge(shortest).logical_and(wavelength_h.le(longest));
  return at::where(between_h, ramp_h, scaled_h);
}

// Theta grows so that a document longer than the training context still fits one turn ("NTK-aware").
at::Tensor DynamicFrequencies(const RopeConfig& config, int64_t head_dim, int64_t document_length) {
  const double length = static_cast<double>(std::max(document_length, config.original_max_positions));
  const double stretch = config.factor * length / config.original_max_positions - (config.factor - 1);
  return DefaultFrequencies(config.theta * std::pow(stretch, head_dim / (head_dim - 2.0)), head_dim);
}

at::Tensor YarnFrequencies(const RopeConfig& config, int64_t head_dim, const at::Tensor& base_h) {
  // The pair that turns `rotations` times within the original context.
  const auto pair_of = [&](double rotations) {
    return head_dim * std::log(config.original_max_positions / (rotations * 2 * std::numbers::pi)) /
           (2 * std::log(config.theta));
  };
  double low = pair_of(config.beta_fast);
  double high = pair_of(config.beta_slow);
  if (config.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, head_dim - 1.0);
  if (low == high) high += 0.001;
  const at::Tensor ramp_h = ((at::arange(head_dim / 2, at::kFloat) - low) / (high - low)).clamp_(0, 1);
  const at::Tensor keep_h = 1 - ramp_h;
  return (base_h / config.factor) * (1 - keep_h) + base_h * keep_h;
}

at::Tensor LongRopeFrequencies(const RopeConfig& config, int64_t rotated_dims, int64_t document_length) {
  const auto& factors = document_length > config.original_max_positions ? config.long_factors : config.short_factors;
  TORCH_CHECK(static_cast<int64_t>(factors.size()) == rotated_dims / 2, "RoPE needs ", rotated_dims / 2,
              " factors, but has ", factors.size());
  const at::Tensor factors_h = at::tensor(at::ArrayRef<double>(factors), at::kDouble).to(at::kFloat);
  const at::Tensor exponent_h = at::arange(0, rotated_dims, 2, at::kLong).to(at::kFloat).div_(rotated_dims);
  return (factors_h * at::pow(at::Scalar(config.theta), exponent_h)).reciprocal_();
}

// Rotates by +angle (direction 1) or −angle (direction −1, the transpose: the gradient).
at::Tensor Rotate(const at::Tensor& x_THd, const at::Tensor& cos_Th, const at::Tensor& sin_Th, int direction) {
  const int64_t half = cos_Th.size(1);
  const std::vector<at::Tensor> halves = x_THd.narrow(-1, 0, 2 * half).to(at::kFloat).split(half, -1);
  const at::Tensor cos_T1h = cos_Th.unsqueeze(1);
  const at::Tensor sin_T1h = sin_Th.unsqueeze(1);
  at::Tensor first = halves[0] * cos_T1h;
  at::Tensor second = halves[1] * cos_T1h;
  first.addcmul_(halves[1], sin_T1h, -direction);
  second.addcmul_(halves[0], sin_T1h, direction);
  const auto dtype = x_THd.scalar_type();
  if (2 * half == x_THd.size(-1)) return at::cat({first, second}, -1).to(dtype);
  return at::cat({first.to(dtype), second.to(dtype), x_THd.slice(-1, 2 * half)}, -1);
}

class RopeFunction : public torch::autograd::Function<RopeFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_THd, const at::Tensor& cos_Th,
                            const at::Tensor& sin_Th) {
    context->save_for_backward({cos_Th, sin_Th});
    return Rotate(x_THd, cos_Th, sin_Th, 1);
  }
  static variable_list backward(AutogradContext* context, variable_list grad) {
    const variable_list saved = context->get_saved_variables();
    return {Rotate(grad[0], saved[0], saved[1], -1), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor RopeInverseFrequencies(const RopeConfig& config, int64_t head_dim, int64_t document_length) {
  const int64_t rotated_dims = config.rotated_dims(head_dim);
  const at::Tensor base_h = DefaultFrequencies(config.theta, rotated_dims);
  switch (config.kind) {
    case RopeConfig::Kind::kDefault:
      return base_h;
    case RopeConfig::Kind::kLinear:
      return base_h / config.factor;
    case RopeConfig::Kind::kLlama3:
      return Llama3Frequencies(config, base_h);
    case RopeConfig::Kind::kDynamic:
      return DynamicFrequencies(config, rotated_dims, document_length);
    case RopeConfig::Kind::kYarn:
      return YarnFrequencies(config, rotated_dims, base_h);
    case RopeConfig::Kind::kLongRope:
      return LongRopeFrequencies(config, rotated_dims, document_length);
  }
  TORCH_CHECK(false, "unknown RoPE kind");
}

RopeTable MakeRopeTable(const RopeConfig& config, int64_t head_dim, const at::Tensor& positions_T,
                        const std::vector<int64_t>& document_starts) {
  const at::Tensor positions_T1 = positions_T.to(at::kFloat).unsqueeze(1);
  at::Tensor angles_Th;
  if (config.kind == RopeConfig::Kind::kDynamic || config.kind == RopeConfig::Kind::kLongRope) {
    std::vector<at::Tensor> documents;
    for (size_t i = 0; i + 1 < document_starts.size(); ++i) {
      const int64_t length = document_starts[i + 1] - document_starts[i];
      documents.push_back(positions_T1.narrow(0, document_starts[i], length) *
                          RopeInverseFrequencies(config, head_dim, length).to(positions_T.device()));
    }
    angles_Th = at::cat(documents);
  } else {
    angles_Th = positions_T1 * RopeInverseFrequencies(config, head_dim, 0).to(positions_T.device());
  }
  RopeTable table{angles_Th.cos(), angles_Th.sin()};
  if (config.attention_factor != 1.0) {
    table.cos_Th.mul_(config.attention_factor);
    table.sin_Th.mul_(config.attention_factor);
  }
  return table;
}

at::Tensor ApplyRope(const at::Tensor& x_THd, const RopeTable& table) {
  RETURN_IF_CUDA(x_THd, ApplyRope(x_THd, table));
  if (cpu::CanApplyRope(x_THd)) return cpu::ApplyRope(x_THd, table);
  return RopeFunction::apply(x_THd, table.cos_Th, table.sin_Th);
}

}  // namespace temper::ops
