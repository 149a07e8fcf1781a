// SPDX-License-Identifier: Apache-2.0
// The operators on a CPU, at the shapes of SmolLM2-135M with 1024 tokens: our kernels, the same operators in plain
// ATen, and PyTorch's own where it has one.
//   build/release/tests/cpu_ops_bench [--benchmark_filter=attention] [--benchmark_repetitions=5 …]
// Rates count what must be computed, or read and written once. `share` is of what one 1024³ product, or one large copy,
// reached at start in the same process.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <benchmark/benchmark.h>
#include <torch/csrc/autograd/autograd.h>

#include <chrono>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "worker/ops/adamw.h"
#include "worker/ops/chunked_cross_entropy.h"
#include "worker/ops/cpu/instruction_set.h"
#include "worker/ops/gated_activation.h"
#include "worker/ops/grouped_linear.h"
#include "worker/ops/linear.h"
#include "worker/ops/matmul_peak.h"
#include "worker/ops/packed_attention.h"
#include "worker/ops/rms_norm.h"
#include "worker/ops/rope.h"
#include "worker/ops/split_masters.h"
#include "worker/ops/vector_math.h"

namespace temper {
namespace {

using ops::cpu::InstructionSet;

constexpr int64_t kTokens = 1024, kHidden = 576, kHeads = 9, kKvHeads = 3, kWidth = 64, kFeedForward = 1536;
constexpr int64_t kVocab = 49152;

struct Peaks {
  double bf16_flops, fp32_flops, bytes;
};

double CopyBytesPerSecond() {
  const at::Tensor from = at::zeros({64 << 20});
  at::Tensor to = at::zeros_like(from);
  double best = 1e9;
  for (int run = 0; run < 8; ++run) {
    const auto begin = std::chrono::steady_clock::now();
    to.copy_(from);
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  return 2.0 * static_cast<double>(from.nbytes()) / best;
}

const Peaks& MeasuredPeaks() {
  static const Peaks peaks = {ops::MeasureMatmulPeak(at::kBFloat16), ops::MeasureMatmulPeak(at::kFloat),
                              CopyBytesPerSecond()};
  return peaks;
}

// What an operator must do at the least: one of the two is what it is measured by.
struct Work {
  double flops = 0;
  double bytes = 0;
};

// Who computes: our kernels, or plain ATen.
enum class Contender { kOurs, kAten };

using Function = std::function<void()>;
// Prepares an operator and returns what is timed.
using Prepare = std::function<Function()>;

void Time(benchmark::State& state, at::ScalarType dtype, const Work& work, InstructionSet kernels,
          const Prepare& prepare) {
  const InstructionSet before = ops::cpu::Kernels();
  ops::cpu::UseKernels(kernels);
  at::manual_seed(1);
  const Function run = prepare();
  run();
  for (auto _ : state) run();
  ops::cpu::UseKernels(before);
  const auto rate = [](double amount) {
    return benchmark::Counter(amount, benchmark::Counter::kIsIterationInvariantRate, benchmark::Counter::kIs1000);
  };
  const Peaks& peaks = MeasuredPeaks();
  if (work.flops > 0) {
    const double peak = dtype == at::kBFloat16 ? peaks.bf16_flops : peaks.fp32_flops;
    state.counters["FLOP/s"] = rate(work.flops);
    state.counters["share"] = rate(work.flops / peak);
  } else {
    state.counters["B/s"] = rate(work.bytes);
    state.counters["share"] = rate(work.bytes / peaks.bytes);
  }
}

void RegisterOne(const std::string& name, at::ScalarType dtype, const Work& work, InstructionSet kernels,
                 const Prepare& prepare) {
  const std::string full = std::string(dtype == at::kBFloat16 ? "bf16/" : "fp32/") + name;
  benchmark::RegisterBenchmark(full.c_str(),
                               [=](benchmark::State& state) { Time(state, dtype, work, kernels, prepare); })
      ->UseRealTime()
      ->Unit(benchmark::kMillisecond);
}

// One line for our kernels and one for plain ATen.
void Register(const std::string& name, at::ScalarType dtype, const Work& work, const Prepare& prepare) {
  RegisterOne(name + "/ours", dtype, work, ops::cpu::Kernels(), prepare);
  RegisterOne(name + "/aten", dtype, work, InstructionSet::kNone, prepare);
}

using Forward = std::function<at::Tensor(const std::vector<at::Tensor>&)>;

// Forward, and backward alone, of a differentiable operator.
Prepare ForwardOf(const std::vector<std::vector<int64_t>>& shapes, at::ScalarType dtype, const Forward& op) {
  return [=] {
    std::vector<at::Tensor> inputs;
    for (const auto& shape : shapes) inputs.push_back(at::randn(shape).to(dtype));
    return [=] { benchmark::DoNotOptimize(op(inputs)); };
  };
}

Prepare BackwardOf(const std::vector<std::vector<int64_t>>& shapes, at::ScalarType dtype, const Forward& op) {
  return [=] {
    std::vector<at::Tensor> inputs;
    for (const auto& shape : shapes) inputs.push_back(at::randn(shape).to(dtype).requires_grad_());
    const at::Tensor out = op(inputs), grad = at::randn_like(out);
    return [=] { benchmark::DoNotOptimize(torch::autograd::grad({out}, inputs, {grad}, /*retain_graph=*/true)); };
  };
}

void RegisterDifferentiable(const std::string& name, at::ScalarType dtype,
                            const std::vector<std::vector<int64_t>>& shapes, const Work& forward, const Work& backward,
                            const Forward& op) {
  Register(name + "/forward", dtype, forward, ForwardOf(shapes, dtype, op));
  Register(name + "/backward", dtype, backward, BackwardOf(shapes, dtype, op));
}

void RegisterAttention(at::ScalarType dtype, int64_t documents, int64_t length) {
  std::vector<int64_t> starts;
  for (int64_t i = 0; i <= documents; ++i) starts.push_back(i * length);
  const int64_t tokens = documents * length;
  const Forward ours = [starts](const auto& in) {
    return ops::PackedAttention(in[0], in[1], in[2], starts, {.scale = 0.125});
  };
  const double flops = 4.0 * kHeads * kWidth * static_cast<double>(ops::CountAttentionPairs(starts));
  const std::string name = "attention " + std::to_string(documents) + "x" + std::to_string(length);
  RegisterDifferentiable(name, dtype,
                         {{tokens, kHeads, kWidth}, {tokens, kKvHeads, kWidth}, {tokens, kKvHeads, kWidth}},
                         {.flops = flops}, {.flops = 2 * flops}, ours);
  // PyTorch's own: documents of one length are a batch.
  const Forward sdpa = [=](const auto& in) {
    const auto batch = [&](const at::Tensor& x, int64_t heads) {
      return x.view({documents, length, heads, kWidth}).transpose(1, 2);
    };
    return at::scaled_dot_product_attention(batch(in[0], kHeads), batch(in[1], kKvHeads), batch(in[2], kKvHeads), {}, 0,
                                            /*is_causal=*/true, /*scale=*/0.125, /*enable_gqa=*/true);
  };
  const std::vector<std::vector<int64_t>> shapes = {
      {tokens, kHeads, kWidth}, {tokens, kKvHeads, kWidth}, {tokens, kKvHeads, kWidth}};
  RegisterOne(name + "/forward/torch", dtype, {.flops = flops}, InstructionSet::kNone, ForwardOf(shapes, dtype, sdpa));
  RegisterOne(name + "/backward/torch", dtype, {.flops = 2 * flops}, InstructionSet::kNone,
              BackwardOf(shapes, dtype, sdpa));
}

void RegisterLmHead(at::ScalarType dtype, bool trained) {
  const double flops = 2.0 * kTokens * kHidden * kVocab * (trained ? 3 : 2);
  Register(trained ? "LM head/trained" : "LM head/frozen", dtype, {.flops = flops}, [=]() -> Function {
    const at::Tensor hidden = at::randn({kTokens, kHidden}).to(dtype),
                     weight = (at::randn({kVocab, kHidden}) * 0.1).to(dtype);
    const at::Tensor targets = at::randint(kVocab, {kTokens}, at::kLong), coefficients = at::full({kTokens}, -1e-3f);
    const at::Tensor grad_weight = trained ? at::zeros({kVocab, kHidden}) : at::Tensor();
    return [=] {
      benchmark::DoNotOptimize(
          ops::TokenLogprobsWithGradients(hidden, weight, kVocab, targets, coefficients, grad_weight));
    };
  });
  if (!trained) return;
  RegisterOne("LM head/trained/torch", dtype, {.flops = flops}, InstructionSet::kNone, [=]() -> Function {
    const at::Tensor hidden = at::randn({kTokens, kHidden}).to(dtype).requires_grad_();
    const at::Tensor weight = (at::randn({kVocab, kHidden}) * 0.1).to(dtype).requires_grad_();
    const at::Tensor targets = at::randint(kVocab, {kTokens}, at::kLong);
    return [=] {
      const at::Tensor loss = at::cross_entropy_loss(at::linear(hidden, weight).to(at::kFloat), targets);
      benchmark::DoNotOptimize(torch::autograd::grad({loss}, {hidden, weight}));
    };
  });
}

// As many rows for each of some experts, at the widths of published models. `torch` is a product after the other.
void RegisterExperts(at::ScalarType dtype, int64_t experts, int64_t rows, int64_t in, int64_t out) {
  const std::string name = "experts " + std::to_string(experts) + "x" + std::to_string(rows);
  const int64_t all = experts * rows;
  const double flops = 2.0 * static_cast<double>(all * in * out);
  std::vector<int64_t> starts;
  for (int64_t i = 0; i <= experts; ++i) starts.push_back(i * rows);
  const std::vector<std::vector<int64_t>> shapes = {{all, in}, {experts, out, in}};
  RegisterOne(name + "/forward/ours", dtype, {.flops = flops}, ops::cpu::Kernels(),
              ForwardOf(shapes, dtype, [=](const auto& x) { return ops::GroupedLinear(x[0], x[1], {}, starts); }));
  RegisterOne(name + "/backward/ours", dtype, {.flops = 2 * flops}, ops::cpu::Kernels(), [=]() -> Function {
    const at::Tensor x = at::randn(shapes[0]).to(dtype).requires_grad_();
    const at::Tensor weight = at::randn(shapes[1]).to(dtype).requires_grad_(), buffer = at::zeros(shapes[1]);
    const at::Tensor y = ops::GroupedLinear(x, weight, {}, starts, buffer), grad = at::randn_like(y);
    return [=] {
      torch::autograd::grad({y}, {x, weight}, {grad}, /*retain_graph=*/true, /*create_graph=*/false,
                            /*allow_unused=*/true);
    };
  });
  const auto each = [=](const at::Tensor& tensor, int64_t expert) { return tensor.narrow(0, expert * rows, rows); };
  RegisterOne(name + "/forward/torch", dtype, {.flops = flops}, InstructionSet::kNone, [=]() -> Function {
    const at::Tensor x = at::randn(shapes[0]).to(dtype), weight = at::randn(shapes[1]).to(dtype);
    return [=] {
      const at::Tensor y = at::empty({all, out}, dtype);
      for (int64_t expert = 0; expert < experts; ++expert) {
        at::Tensor into = each(y, expert);
        at::mm_out(into, each(x, expert), weight[expert].t());
      }
    };
  });
  RegisterOne(name + "/backward/torch", dtype, {.flops = 2 * flops}, InstructionSet::kNone, [=]() -> Function {
    const at::Tensor x = at::randn(shapes[0]).to(dtype), weight = at::randn(shapes[1]).to(dtype);
    const at::Tensor grad_y = at::randn({all, out}).to(dtype), buffer = at::zeros(shapes[1]);
    return [=] {
      const at::Tensor grad_x = at::empty_like(x), grad_weight = at::empty_like(weight);
      for (int64_t expert = 0; expert < experts; ++expert) {
        at::Tensor into = each(grad_x, expert), into_weight = grad_weight[expert];
        at::mm_out(into, each(grad_y, expert), weight[expert]);
        at::mm_out(into_weight, each(grad_y, expert).t(), each(x, expert));
      }
      buffer.add_(grad_weight);
    };
  });
}

// A frozen map of three equal parts with an adapter on each, or none; all that a training step takes of it.
void RegisterAdaptedLinear(at::ScalarType dtype, int64_t rank) {
  const double weights = 3.0 * kHidden * kHidden, factors = 3.0 * 2 * kHidden * static_cast<double>(rank);
  const std::string name = rank == 0 ? "linear/frozen" : "linear/frozen, LoRA";
  Register(name, dtype, {.flops = 2.0 * kTokens * (2 * weights + 3 * factors)}, [=]() -> Function {
    const at::Tensor x = at::randn({kTokens, kHidden}).to(dtype).requires_grad_();
    const at::Tensor weight = at::randn({3 * kHidden, kHidden}).to(dtype);
    const at::Tensor grad = at::randn({kTokens, 3 * kHidden}).to(dtype);
    std::vector<ops::LowRankUpdate> updates;
    for (int64_t part = 0; rank > 0 && part < 3; ++part) {
      updates.push_back({.a_RI = at::randn({rank, kHidden}).to(dtype).requires_grad_(),
                         .b_OR = at::randn({kHidden, rank}).to(dtype).requires_grad_(),
                         .grad_a_RI = at::zeros({rank, kHidden}),
                         .grad_b_OR = at::zeros({kHidden, rank}),
                         .row = part * kHidden});
    }
    std::vector<at::Tensor> inputs = {x};
    for (const ops::LowRankUpdate& update : updates) inputs.insert(inputs.end(), {update.a_RI, update.b_OR});
    return [=] {
      torch::autograd::grad({ops::Linear(x, weight, {}, {}, updates)}, inputs, {grad}, /*retain_graph=*/false,
                            /*create_graph=*/false, /*allow_unused=*/true);
    };
  });
}

void RegisterRows(at::ScalarType dtype) {
  const double size = dtype == at::kBFloat16 ? 2 : 4;
  const double hidden = size * kTokens * kHidden;
  RegisterDifferentiable("RMSNorm", dtype, {{kTokens, kHidden}, {kHidden}}, {.bytes = 2 * hidden},
                         {.bytes = 3 * hidden}, [](const auto& in) { return ops::RmsNorm(in[0], in[1], {}); });
  RegisterOne("RMSNorm/forward/torch", dtype, {.bytes = 2 * hidden}, InstructionSet::kNone,
              ForwardOf({{kTokens, kHidden}, {kHidden}}, dtype,
                        [](const auto& in) { return at::rms_norm(in[0], {kHidden}, in[1], 1e-6); }));
  RegisterOne("RMSNorm/backward/torch", dtype, {.bytes = 3 * hidden}, InstructionSet::kNone,
              BackwardOf({{kTokens, kHidden}, {kHidden}}, dtype,
                         [](const auto& in) { return at::rms_norm(in[0], {kHidden}, in[1], 1e-6); }));
  const ops::RopeTable table = ops::MakeRopeTable({}, kWidth, at::arange(kTokens), {0, kTokens});
  RegisterDifferentiable("RoPE", dtype, {{kTokens, kHeads, kWidth}}, {.bytes = 2 * hidden}, {.bytes = 2 * hidden},
                         [table](const auto& in) { return ops::ApplyRope(in[0], table); });
  const double inner = size * kTokens * kFeedForward;
  for (const auto& [name, activation] :
       {std::pair{"SwiGLU", ops::Activation::kSilu}, std::pair{"GeGLU", ops::Activation::kGeluTanh}}) {
    RegisterDifferentiable(
        name, dtype, {{kTokens, 2 * kFeedForward}}, {.bytes = 3 * inner}, {.bytes = 5 * inner},
        [activation = activation](const auto& in) { return ops::GatedActivation(in[0], activation); });
  }
}

void RegisterAdamW() {
  // More than any cache holds.
  constexpr int64_t kSize = 64 << 20;
  const ops::AdamWCoefficients c = {.learning_rate = 1e-6, .weight_decay = 0.1, .gradient_scale = 0.5};
  Register("AdamW", at::kFloat, {.bytes = 28.0 * kSize}, [=]() -> Function {
    const at::Tensor master = at::zeros({kSize}), grad = at::ones({kSize}), m = at::zeros({kSize}),
                     v = at::zeros({kSize});
    return [=] { ops::AdamWUpdate(master, grad, m, v, c); };
  });
  Register("AdamW", at::kBFloat16, {.bytes = 28.0 * kSize}, [=]() -> Function {
    const at::Tensor high = at::zeros({kSize}, at::kBFloat16), low = at::zeros({kSize}, at::kShort);
    const at::Tensor grad = at::ones({kSize}), m = at::zeros({kSize}), v = at::zeros({kSize});
    return [=] { ops::AdamWUpdateSplit(high, low, grad, m, v, c); };
  });
}

void RegisterAll() {
  for (const auto dtype : {at::kBFloat16, at::kFloat}) {
    RegisterAttention(dtype, 2, 512);
    RegisterAttention(dtype, 8, 128);
    RegisterAttention(dtype, 1, 4096);
    RegisterLmHead(dtype, true);
    RegisterLmHead(dtype, false);
    RegisterRows(dtype);
    RegisterAdaptedLinear(dtype, /*rank=*/0);
    RegisterAdaptedLinear(dtype, /*rank=*/16);
    RegisterExperts(dtype, 128, 32, 2048, 1536);  // Qwen3-30B-A3B, 512 tokens
    RegisterExperts(dtype, 32, 64, 2880, 5760);   // gpt-oss-20b, 512 tokens
    RegisterExperts(dtype, 8, 128, 4096, 7168);   // Mixtral-8x7B with half the width, 512 tokens
  }
  RegisterAdamW();
}

}  // namespace
}  // namespace temper

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  temper::ops::InitializeVectorMath();
  const temper::Peaks& peaks = temper::MeasuredPeaks();
  std::printf("%d threads, kernels: %s; peaks: %.0f GFLOP/s bf16, %.0f GFLOP/s fp32, %.1f GB/s copied\n",
              at::get_num_threads(), std::string(temper::ops::cpu::Name(temper::ops::cpu::Kernels())).c_str(),
              peaks.bf16_flops / 1e9, peaks.fp32_flops / 1e9, peaks.bytes / 1e9);
  temper::RegisterAll();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
