// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/ops/_flash_attention_backward.h>
#include <ATen/ops/_flash_attention_forward.h>

#include <algorithm>
#include <optional>

#include "worker/ops/cuda/attention.h"

namespace temper::ops::cuda {
namespace {

// ATen's form of document_starts and of the window.
struct Varlen {
  at::Tensor starts;  // int32, on the device
  int64_t longest;
  std::optional<int64_t> window_left;
  std::optional<int64_t> window_right;
};

Varlen VarlenOf(const std::vector<int64_t>& document_starts, const ScoreConfig& config, at::Device device) {
  Varlen varlen;
  std::vector<int32_t> starts(document_starts.begin(), document_starts.end());
  starts.erase(std::unique(starts.begin(), starts.end()), starts.end());  // empty documents
  // At 1, ATen would take another layout for the log-sum-exp; a longer bound costs nothing.
  varlen.longest = 2;
  for (size_t i = 1; i < starts.size(); ++i)
    varlen.longest = std::max<int64_t>(varlen.longest, starts[i] - starts[i - 1]);
  varlen.starts = at::tensor(starts, at::kInt).to(device, /*non_blocking=*/true);
  if (config.window > 0) {
    varlen.window_left = config.window - 1;
    varlen.window_right = 0;
  }
  return varlen;
}

// Without it ATen's backward adds to dq in whatever order its blocks end.
class DeterministicGuard {
 public:
  DeterministicGuard()
      : algorithms_(context_.deterministicAlgorithms()),
        warn_only_(context_.deterministicAlgorithmsWarnOnly()),
        fills_(context_.deterministicFillUninitializedMemory()) {
    context_.setDeterministicAlgorithms(true, /*warn_only=*/false);
    context_.setDeterministicFillUninitializedMemory(false);
  }
  ~DeterministicGuard() {
    context_.setDeterministicAlgorithms(algorithms_, warn_only_);
    context_.setDeterministicFillUninitializedMemory(fills_);
  }
  DeterministicGuard(const DeterministicGuard&) = delete;
  DeterministicGuard& operator=(const DeterministicGuard&) = delete;

 private:
  at::Context& context_ = at::globalContext();
  bool algorithms_;
  bool warn_only_;
  bool fills_;
};

// Heads of a fused q, k, v product are read where they lie, if each begins at 16 bytes.
at::Tensor Readable(const at::Tensor& x_THd) {
  const bool aligned = x_THd.stride(2) == 1 && x_THd.stride(0) % 8 == 0 && x_THd.stride(1) % 8 == 0 &&
                       reinterpret_cast<uintptr_t>(x_THd.const_data_ptr()) % 16 == 0;
  return aligned ? x_THd : x_THd.contiguous();
}

}  // namespace

bool CanFlash(const at::Tensor& q_THd, const ScoreConfig& config) {
  return q_THd.size(0) > 0 && q_THd.scalar_type() == at::kBFloat16 && q_THd.size(2) % 8 == 0 && q_THd.size(2) <= 256 &&
         config.softcap == 0;
}

AttentionOutput FlashForward(const at::Tensor& q_THd, const at::Tensor& k_TKd, const at::Tensor& v_TKd,
                             const std::vector<int64_t>& document_starts, const ScoreConfig& config) {
  const Varlen varlen = VarlenOf(document_starts, config, q_THd.device());
  const auto results = at::_flash_attention_forward(Readable(q_THd), Readable(k_TKd), Readable(v_TKd), varlen.starts,
                                                    varlen.starts, varlen.longest, varlen.longest,
                                                    /*dropout_p=*/0.0, /*is_causal=*/true, /*return_debug_mask=*/false,
                                                    config.scale, varlen.window_left, varlen.window_right);
  return {std::get<0>(results), std::get<1>(results)};
}

AttentionGradients FlashBackward(const AttentionBackwardInput& in, const std::vector<int64_t>& document_starts,
                                 const ScoreConfig& config) {
  const DeterministicGuard deterministic;
  const Varlen varlen = VarlenOf(document_starts, config, in.q_THd.device());
  // The state of a dropout that there is none of.
  const at::Tensor unused = at::empty({0}, in.q_THd.options());
  const auto [q_THd, k_TKd, v_TKd] = at::_flash_attention_backward(
      in.grad_out_THd, Readable(in.q_THd), Readable(in.k_TKd), Readable(in.v_TKd), in.output.out_THd, in.output.lse_HT,
      varlen.starts, varlen.starts, varlen.longest, varlen.longest, /*dropout_p=*/0.0, /*is_causal=*/true, unused,
      unused, config.scale, varlen.window_left, varlen.window_right);
  return {q_THd, k_TKd, v_TKd};
}

}  // namespace temper::ops::cuda
