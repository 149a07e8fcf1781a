// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/packed_attention.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <optional>

#include "worker/ops/cuda/attention.h"
#include "worker/ops/cuda/attention_sink_kernel.h"
#include "worker/ops/cuda/launch.h"
#include "worker/ops/cuda/operators.h"

namespace temper::ops::cuda {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

AttentionRows RowsOf(const at::Tensor& x_THd) {
  return {ElementTypeOf(x_THd), x_THd.size(0), x_THd.size(1), x_THd.size(2)};
}

AttentionOutput WithSinks(const AttentionOutput& output, const at::Tensor& sinks_H) {
  const at::Tensor sinks = sinks_H.to(at::kFloat).contiguous();
  AttentionOutput with_sinks{output.out_THd, at::empty_like(output.lse_HT)};
  Launch(output.out_THd, [&](cudaStream_t stream) {
    ApplySinks(RowsOf(output.out_THd), sinks.const_data_ptr<float>(), output.lse_HT.const_data_ptr<float>(),
               with_sinks.out_THd.mutable_data_ptr(), with_sinks.lse_HT.mutable_data_ptr<float>(), stream);
  });
  return with_sinks;
}

at::Tensor GradientOfSinks(const AttentionBackwardInput& in, const at::Tensor& sinks_H) {
  const at::Tensor sinks = sinks_H.to(at::kFloat).contiguous();
  const at::Tensor grad_HT = at::empty_like(in.output.lse_HT);
  Launch(in.grad_out_THd, [&](cudaStream_t stream) {
    SinkGradient(RowsOf(in.grad_out_THd), sinks.const_data_ptr<float>(), in.output.lse_HT.const_data_ptr<float>(),
                 in.grad_out_THd.const_data_ptr(), in.output.out_THd.const_data_ptr(),
                 grad_HT.mutable_data_ptr<float>(), stream);
  });
  return grad_HT.sum(1).to(sinks_H.scalar_type());
}

class PackedAttentionFunction : public torch::autograd::Function<PackedAttentionFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q_THd, const at::Tensor& k_TKd,
                            const at::Tensor& v_TKd, const std::optional<at::Tensor>& sinks_H,
                            const std::vector<int64_t>& document_starts, const ScoreConfig& config) {
    AttentionOutput output = CanFlash(q_THd, config) ? FlashForward(q_THd, k_TKd, v_TKd, document_starts, config)
                                                     : BlockForward(q_THd, k_TKd, v_TKd, document_starts, config);
    if (sinks_H.has_value()) output = WithSinks(output, *sinks_H);
    context->save_for_backward({q_THd, k_TKd, v_TKd, sinks_H.value_or(at::Tensor()), output.out_THd, output.lse_HT});
    context->saved_data["document_starts"] = document_starts;
    context->saved_data["scale"] = config.scale;
    context->saved_data["softcap"] = config.softcap;
    context->saved_data["window"] = config.window;
    return output.out_THd;
  }

  static variable_list backward(AutogradContext* context, variable_list grad) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor& sinks_H = saved[3];
    const AttentionBackwardInput in = {grad[0].contiguous(), saved[0], saved[1], saved[2], {saved[4], saved[5]}};
    const std::vector<int64_t> document_starts = context->saved_data["document_starts"].toIntVector();
    const ScoreConfig config{.scale = context->saved_data["scale"].toDouble(),
                             .softcap = context->saved_data["softcap"].toDouble(),
                             .window = context->saved_data["window"].toInt()};
    const AttentionGradients grads = CanFlash(in.q_THd, config) ? FlashBackward(in, document_starts, config)
                                                                : BlockBackward(in, document_starts, config);
    at::Tensor grad_sinks_H;
    if (sinks_H.defined()) grad_sinks_H = GradientOfSinks(in, sinks_H);
    return {grads.q_THd, grads.k_TKd, grads.v_TKd, grad_sinks_H, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor PackedAttention(const at::Tensor& q_THd, const at::Tensor& k_TKd, const at::Tensor& v_TKd,
                           const std::vector<int64_t>& document_starts, const ScoreConfig& config,
                           const at::Tensor& sinks_H) {
  // autograd::Function takes no undefined tensor.
  const std::optional<at::Tensor> given_sinks_H = sinks_H.defined() ? std::optional(sinks_H) : std::nullopt;
  return PackedAttentionFunction::apply(q_THd, k_TKd, v_TKd, given_sinks_H, document_starts, config);
}

}  // namespace temper::ops::cuda
