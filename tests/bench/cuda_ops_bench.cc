// SPDX-License-Identifier: Apache-2.0
// The operators on a GPU, at the shapes of an 8B Llama with 4096 tokens in bf16, against the same operators in ATen:
//   build/release/tests/cuda_ops_bench
// Times are medians of CUDA events, with the L2 cache emptied before each run. Rates count what must be computed, or
// read and written once; the share is of what the card gives to a large matrix product or a large copy.
#include <ATen/ATen.h>
#include <ATen/ops/_flash_attention_backward.h>
#include <ATen/ops/_fused_rms_norm.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <functional>
#include <string>
#include <vector>

#include "worker/ops/cuda/operators.h"
#include "worker/ops/embedding.h"
#include "worker/ops/gated_activation.h"
#include "worker/ops/packed_attention.h"
#include "worker/ops/rms_norm.h"

namespace temper {
namespace {

constexpr int64_t kTokens = 4096, kHidden = 4096, kHeads = 32, kKvHeads = 8, kWidth = 128, kFeedForward = 14336;
constexpr int64_t kVocab = 128256;

using Function = std::function<void()>;

at::Tensor Random(at::IntArrayRef sizes, at::ScalarType dtype = at::kBFloat16) {
  return at::randn(sizes, at::TensorOptions(at::kCUDA).dtype(dtype));
}

// Milliseconds, the median.
double Time(const Function& function, int runs = 15) {
  at::Tensor l2 = at::empty({256 << 20}, at::TensorOptions(at::kCUDA).dtype(at::kByte));
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream().stream();
  std::vector<cudaEvent_t> events(2 * runs);
  for (cudaEvent_t& event : events) C10_CUDA_CHECK(cudaEventCreate(&event));
  for (int run = -2; run < runs; ++run) {
    l2.zero_();
    if (run >= 0) C10_CUDA_CHECK(cudaEventRecord(events[2 * run], stream));
    function();
    if (run >= 0) C10_CUDA_CHECK(cudaEventRecord(events[2 * run + 1], stream));
  }
  C10_CUDA_CHECK(cudaDeviceSynchronize());
  std::vector<double> times;
  for (int run = 0; run < runs; ++run) {
    float milliseconds = 0;
    C10_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, events[2 * run], events[2 * run + 1]));
    times.push_back(milliseconds);
  }
  for (const cudaEvent_t event : events) C10_CUDA_CHECK(cudaEventDestroy(event));
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

struct Peaks {
  double flops;
  double bytes;
};

Peaks MeasurePeaks() {
  const at::Tensor a = Random({8192, 8192}), b = Random({8192, 8192});
  at::Tensor c = at::empty_like(a);
  const double product = Time([&] { at::mm_out(c, a, b); });
  const at::Tensor from = Random({1 << 29});
  at::Tensor to = at::empty_like(from);
  const double copy = Time([&] { to.copy_(from); });
  return {2.0 * 8192 * 8192 * 8192 / product * 1e3, 2.0 * from.nbytes() / copy * 1e3};
}

// What an operator must do at the least: one of the two is what it is measured by.
struct Work {
  double flops = 0;
  double bytes = 0;
};

class Table {
 public:
  explicit Table(const Peaks& peaks) : peaks_(peaks) {
    std::printf("peaks: %.0f TFLOP/s (8192³ bf16 product), %.2f TB/s (copy, read + written)\n", peaks.flops / 1e12,
                peaks.bytes / 1e12);
    std::printf("%-44s %9s %9s %6s %14s %6s\n", "operator", "ours ms", "ATen ms", "ratio", "ours", "share");
  }

  // A contender that throws (out of memory, not in this ATen) has no time; the row says why.
  void Row(const std::string& name, const Work& work, const Function& ours, const Function& aten) {
    const double our_time = Measure(name, ours), aten_time = aten ? Measure(name, aten) : 0;
    const bool by_flops = work.flops > 0;
    const double rate = (by_flops ? work.flops : work.bytes) / our_time * 1e3;
    std::printf("%-44s %9.3f %9.3f %6.2f %8.1f %s %5.0f%%\n", name.c_str(), our_time, aten_time, aten_time / our_time,
                by_flops ? rate / 1e12 : rate / 1e9, by_flops ? "TFLOP/s" : "GB/s   ",
                100 * rate / (by_flops ? peaks_.flops : peaks_.bytes));
    std::fflush(stdout);
  }

 private:
  double Measure(const std::string& name, const Function& function) {
    try {
      return Time(function);
    } catch (const std::exception& error) {
      std::printf("%s: %.200s\n", name.c_str(), error.what());
      return 0;
    }
  }
  Peaks peaks_;
};

using Forward = std::function<at::Tensor(const std::vector<at::Tensor>&)>;

// Two rows: forward, and backward alone.
void BenchDifferentiable(Table& table, const std::string& name, const std::vector<at::Tensor>& inputs, Work forward,
                         Work backward, const Forward& ours, const Forward& aten) {
  std::vector<at::Tensor> leaves;
  for (const at::Tensor& input : inputs) leaves.push_back(input.detach().requires_grad_());
  const auto run_forward = [&](const Forward& op) {
    return [&] {
      const at::NoGradGuard no_grad;
      op(inputs);
    };
  };
  table.Row(name, forward, run_forward(ours), run_forward(aten));
  const auto run_backward = [&](const Forward& op) -> Function {
    at::Tensor output, grad;
    try {
      output = op(leaves);
      grad = at::randn_like(output);
    } catch (const std::exception& error) {
      return [what = std::string(error.what())] { throw std::runtime_error(what); };
    }
    return [output, grad, &leaves] { torch::autograd::grad({output}, leaves, {grad}, /*retain_graph=*/true); };
  };
  table.Row(name + ", backward", backward, run_backward(ours), run_backward(aten));
}

void BenchRowWise(Table& table) {
  {
    const std::vector<at::Tensor> in = {Random({kTokens, kHidden}), Random({kHidden})};
    const double bytes = in[0].nbytes();
    const Forward ours = [](const auto& t) { return ops::cuda::RmsNorm(t[0], t[1], {}); };
    BenchDifferentiable(table, "RMSNorm 4096×4096", in, {.bytes = 2 * bytes}, {.bytes = 3 * bytes}, ours,
                        [](const auto& t) { return ops::RmsNorm(t[0], t[1], {}); });
    BenchDifferentiable(table, "RMSNorm 4096×4096, vs _fused_rms_norm", in, {.bytes = 2 * bytes}, {.bytes = 3 * bytes},
                        ours,
                        [](const auto& t) { return std::get<0>(at::_fused_rms_norm(t[0], {kHidden}, t[1], 1e-6)); });
    BenchDifferentiable(
        table, "RMSNorm 4096×4096, frozen weight", {in[0]}, {.bytes = 2 * bytes}, {.bytes = 3 * bytes},
        [&](const auto& t) { return ops::cuda::RmsNorm(t[0], in[1], {}); },
        [&](const auto& t) { return ops::RmsNorm(t[0], in[1], {}); });
  }
  {
    const std::vector<at::Tensor> in = {Random({kTokens, kHeads, kWidth}), Random({kWidth})};
    const double bytes = in[0].nbytes();
    BenchDifferentiable(
        table, "RMSNorm of heads 4096×32×128", in, {.bytes = 2 * bytes}, {.bytes = 3 * bytes},
        [](const auto& t) { return ops::cuda::RmsNorm(t[0], t[1], {}); },
        [](const auto& t) { return ops::RmsNorm(t[0], t[1], {}); });
    const ops::RopeTable rope = ops::MakeRopeTable({}, kWidth, at::arange(kTokens, at::kCUDA), {0, kTokens});
    BenchDifferentiable(
        table, "RoPE 4096×32×128", {in[0]}, {.bytes = 2 * bytes}, {.bytes = 2 * bytes},
        [&](const auto& t) { return ops::cuda::ApplyRope(t[0], rope); },
        [&](const auto& t) { return ops::ApplyRope(t[0], rope); });
  }
  const at::Tensor gate_up = Random({kTokens, 2 * kFeedForward});
  const double bytes = gate_up.nbytes();
  for (const auto& [name, activation] : {std::pair{"SwiGLU 4096×14336", ops::Activation::kSilu},
                                         {"GeGLU (tanh)", ops::Activation::kGeluTanh},
                                         {"clamped SwiGLU", ops::Activation::kClampedSwiGlu}}) {
    BenchDifferentiable(
        table, name, {gate_up}, {.bytes = 1.5 * bytes}, {.bytes = 2.5 * bytes},
        [=](const auto& t) { return ops::cuda::GatedActivation(t[0], activation); },
        [=](const auto& t) { return ops::GatedActivation(t[0], activation); });
  }
}

void BenchAttention(Table& table, const std::string& name, const std::vector<int64_t>& starts,
                    const ops::ScoreConfig& config, bool sinks) {
  std::vector<at::Tensor> in = {Random({kTokens, kHeads, kWidth}), Random({kTokens, kKvHeads, kWidth}),
                                Random({kTokens, kKvHeads, kWidth})};
  if (sinks) in.push_back(Random({kHeads}));
  // One rule for every row: two products forward and twice that backward (flash computes one of them again).
  const double flops = 4.0 * kHeads * kWidth * ops::CountAttentionPairs(starts, config.window);
  const auto with = [&](auto* op) -> Forward {
    return [=](const auto& t) { return op(t[0], t[1], t[2], starts, config, sinks ? t[3] : at::Tensor()); };
  };
  BenchDifferentiable(table, name, in, {.flops = flops}, {.flops = 2 * flops}, with(&ops::cuda::PackedAttention),
                      with(&ops::PackedAttention));
}

void BenchAttentions(Table& table) {
  const double scale = 1 / std::sqrt(kWidth);
  BenchAttention(table, "attention, 1 document", {0, kTokens}, {.scale = scale}, false);
  BenchAttention(table, "attention, 8 documents", {0, 512, 1024, 1536, 2048, 2560, 3072, 3584, kTokens},
                 {.scale = scale}, false);
  BenchAttention(table, "attention, window 1024", {0, kTokens}, {.scale = scale, .window = 1024}, false);
  BenchAttention(table, "attention, sinks", {0, kTokens}, {.scale = scale}, true);
  BenchAttention(table, "attention, softcap", {0, kTokens}, {.scale = scale, .softcap = 50}, false);
  // What the same bits every time cost: the backward of the first row with and without.
  const at::Tensor q = Random({kTokens, kHeads, kWidth}), k = Random({kTokens, kKvHeads, kWidth}),
                   v = Random(k.sizes());
  const at::Tensor starts = at::tensor({0, static_cast<int>(kTokens)}, at::kInt).to(at::kCUDA);
  const auto out = at::_flash_attention_forward(q, k, v, starts, starts, kTokens, kTokens, 0.0, true, false, scale);
  const at::Tensor grad = at::randn_like(q), none = at::empty({0}, q.options());
  const auto backward = [&] {
    at::_flash_attention_backward(grad, q, k, v, std::get<0>(out), std::get<1>(out), starts, starts, kTokens, kTokens,
                                  0.0, true, none, none, scale);
  };
  table.Row(
      "flash backward: deterministic, and not",
      {.flops = 8.0 * kHeads * kWidth * ops::CountAttentionPairs({0, kTokens})},
      [&] {
        at::globalContext().setDeterministicAlgorithms(true, false);
        at::globalContext().setDeterministicFillUninitializedMemory(false);
        backward();
        at::globalContext().setDeterministicAlgorithms(false, false);
      },
      backward);
}

void BenchHead(Table& table) {
  const at::Tensor hidden = Random({kTokens, kHidden}), weight = Random({kVocab, kHidden}) * 0.02;
  const at::Tensor targets = at::randint(kVocab, {kTokens}, at::TensorOptions(at::kCUDA).dtype(at::kLong));
  const at::Tensor coefficients = Random({kTokens}, at::kFloat);
  at::Tensor grad_weight = at::zeros({kVocab, kHidden}, at::TensorOptions(at::kCUDA).dtype(at::kFloat));
  const double product = 2.0 * kTokens * kHidden * kVocab;
  table.Row(
      "LM head 4096×4096×128256, forward", {.flops = product},
      [&] { ops::cuda::TokenLogprobs(hidden, weight, kVocab, targets); },
      [&] { ops::TokenLogprobs(hidden, weight, kVocab, targets); });
  table.Row(
      "LM head, with gradients, frozen", {.flops = 2 * product},
      [&] { ops::cuda::TokenLogprobsWithGradients(hidden, weight, kVocab, targets, coefficients, {}); },
      [&] { ops::TokenLogprobsWithGradients(hidden, weight, kVocab, targets, coefficients, {}); });
  table.Row(
      "LM head, with gradients, trained", {.flops = 3 * product},
      [&] { ops::cuda::TokenLogprobsWithGradients(hidden, weight, kVocab, targets, coefficients, grad_weight); },
      [&] { ops::TokenLogprobsWithGradients(hidden, weight, kVocab, targets, coefficients, grad_weight); });
}

void BenchParameters(Table& table) {
  const auto fp32 = at::kFloat;
  {
    at::Tensor weight = Random({kHidden, kFeedForward}, fp32), m = Random(weight.sizes(), fp32);
    at::Tensor v = Random(weight.sizes(), fp32).square();
    const at::Tensor grad = Random(weight.sizes(), fp32);
    const ops::AdamWCoefficients c = {.learning_rate = 1e-4, .weight_decay = 0.1, .gradient_scale = 0.5};
    table.Row(
        "AdamW 4096×14336", {.bytes = 7.0 * weight.nbytes()}, [&] { ops::cuda::AdamWUpdate(weight, grad, m, v, c); },
        [&] { ops::AdamWUpdate(weight, grad, m, v, c); });
  }
  const at::Tensor tokens = at::randint(kVocab, {kTokens}, at::TensorOptions(at::kCUDA).dtype(at::kLong));
  const at::Tensor grad = Random({kTokens, kHidden});
  at::Tensor grad_weight = at::zeros({kVocab, kHidden}, at::TensorOptions(at::kCUDA).dtype(fp32));
  // A row of the gradient in bf16, and a row of the sum read and written in fp32.
  table.Row(
      "embedding, backward", {.bytes = 5.0 * grad.nbytes()},
      [&] { ops::cuda::EmbeddingBackward(grad, tokens, grad_weight); },
      [&] { ops::EmbeddingBackward(grad, tokens, grad_weight); });
}

int Run() {
  cudaDeviceProp properties;
  C10_CUDA_CHECK(cudaGetDeviceProperties(&properties, 0));
  std::printf("%s, %d multiprocessors\n", properties.name, properties.multiProcessorCount);
  at::manual_seed(1);
  Table table(MeasurePeaks());
  for (const auto bench : {BenchRowWise, BenchAttentions, BenchHead, BenchParameters}) {
    try {
      bench(table);
    } catch (const std::exception& error) {
      std::printf("%.500s\n", error.what());
    }
  }
  return 0;
}

}  // namespace
}  // namespace temper

int main() { return temper::Run(); }
