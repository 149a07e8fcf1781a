// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/packed_attention.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <memory>
#include <numbers>
#include <optional>

#include "worker/ops/cpu/attention_head.h"
#include "worker/ops/cpu/brgemm.h"
#include "worker/ops/cpu/operators.h"
#include "worker/ops/cpu/tasks.h"

// Legend: as worker/ops/packed_attention.h.

namespace temper::ops::cpu {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Queries of a forward task: a long document is more than one.
constexpr int64_t kQueriesPerTask = 16 * kAttentionBlock;
// Numbers to sum that are worth a thread of their own.
constexpr int64_t kSumGrain = 1 << 15;

const AttentionKernels& Chosen() { return Choose(avx2::kAttention, avx512::kAttention); }

const char* At(const at::Tensor& x_THd, int64_t token, int64_t head) {
  const int64_t element = token * x_THd.stride(0) + head * x_THd.stride(1);
  return static_cast<const char*>(x_THd.const_data_ptr()) + element * x_THd.element_size();
}

char* MutableAt(const at::Tensor& x_THd, int64_t token, int64_t head) {
  return const_cast<char*>(At(x_THd, token, head));
}

// Heads may stand apart, but the numbers of one may not.
at::Tensor DenseHeads(const at::Tensor& x_THd) { return x_THd.stride(2) == 1 ? x_THd : x_THd.contiguous(); }

// What attention computes with, forward and backward.
struct Attention {
  at::Tensor q_THd, k_TKd, v_TKd, sinks_H;  // sinks: fp32, or undefined
  at::Tensor out_THd, logsumexp_HT;
  std::vector<int64_t> document_starts;
  AttentionScores scores;

  int64_t heads() const { return q_THd.size(1); }
  int64_t width() const { return q_THd.size(2); }
  bool bf16() const { return q_THd.scalar_type() == at::kBFloat16; }
  int64_t longest_document() const {
    int64_t longest = 0;
    for (size_t i = 0; i + 1 < document_starts.size(); ++i) {
      longest = std::max(longest, document_starts[i + 1] - document_starts[i]);
    }
    return longest;
  }

  AttentionHead HeadOf(int64_t begin, int64_t end, int64_t head) const {
    const int64_t kv_head = head / (heads() / k_TKd.size(1));
    AttentionHead result;
    result.length = end - begin;
    result.width = width();
    result.bf16 = bf16();
    result.q = At(q_THd, begin, head);
    result.k = At(k_TKd, begin, kv_head);
    result.v = At(v_TKd, begin, kv_head);
    result.q_stride = q_THd.stride(0);
    result.k_stride = k_TKd.stride(0);
    result.v_stride = v_TKd.stride(0);
    result.out = MutableAt(out_THd, begin, head);
    result.out_stride = out_THd.stride(0);
    result.logsumexp = logsumexp_HT.mutable_data_ptr<float>() + head * q_THd.size(0) + begin;
    result.has_sink = sinks_H.defined();
    if (result.has_sink) result.sink = sinks_H.const_data_ptr<float>()[head];
    return result;
  }
};

struct Task {
  int64_t begin, end;  // of the document
  int64_t head;
  int64_t first_query, end_query;
};

// The longest first, or a thread would be left alone with one in the end.
std::vector<Task> MakeTasks(const Attention& attention, int64_t queries_per_task) {
  std::vector<Task> tasks;
  for (size_t i = 0; i + 1 < attention.document_starts.size(); ++i) {
    const int64_t begin = attention.document_starts[i], end = attention.document_starts[i + 1];
    for (int64_t first = 0; first < end - begin; first += queries_per_task) {
      for (int64_t head = 0; head < attention.heads(); ++head) {
        tasks.push_back({begin, end, head, first, std::min(first + queries_per_task, end - begin)});
      }
    }
  }
  const auto work = [](const Task& task) { return (task.end_query - task.first_query) * task.end_query; };
  std::stable_sort(tasks.begin(), tasks.end(), [&](const Task& a, const Task& b) { return work(a) > work(b); });
  return tasks;
}

void RunAttentionTasks(const std::vector<Task>& tasks, int64_t scratch_bytes,
                       const std::function<void(const Task&, char* scratch)>& run) {
  RunTasks(static_cast<int64_t>(tasks.size()), [&] {
    const at::Tensor memory = at::empty({scratch_bytes + 64}, at::kByte);
    auto* const begin = static_cast<char*>(memory.mutable_data_ptr());
    char* const scratch = begin + (64 - reinterpret_cast<uintptr_t>(begin) % 64);
    // The matrix unit is given back when this thread's tasks are done.
    const std::shared_ptr<void> release(nullptr, [memory](void*) { ReleaseBrgemm(); });
    return [&, scratch, release](int64_t task) { run(tasks[task], scratch); };
  });
}

void Forward(const Attention& attention) {
  const int64_t scratch = Chosen().forward_scratch(attention.longest_document(), attention.width(), attention.bf16());
  RunAttentionTasks(MakeTasks(attention, kQueriesPerTask), scratch, [&](const Task& task, char* memory) {
    const AttentionHead head = attention.HeadOf(task.begin, task.end, task.head);
    Chosen().forward(head, attention.scores, task.first_query, task.end_query, memory);
  });
}

struct Gradients {
  at::Tensor q_THd;
  at::Tensor k_THd, v_THd;  // fp32, of each query head
  at::Tensor delta_HT;      // fp32: rowsum(dO ∘ O)
};

Gradients Backward(const Attention& attention, const at::Tensor& grad_out_THd) {
  const at::Tensor& q_THd = attention.q_THd;
  const auto fp32 = q_THd.options().dtype(at::kFloat);
  Gradients grads = {at::empty(q_THd.sizes(), q_THd.options()), at::empty(q_THd.sizes(), fp32),
                     at::empty(q_THd.sizes(), fp32), at::empty_like(attention.logsumexp_HT)};
  const int64_t tokens = q_THd.size(0), row = attention.heads() * attention.width();
  const int64_t scratch = Chosen().backward_scratch(attention.longest_document(), attention.width(), attention.bf16());
  const auto tasks = MakeTasks(attention, std::numeric_limits<int64_t>::max() / 2);
  RunAttentionTasks(tasks, scratch, [&](const Task& task, char* memory) {
    AttentionHead head = attention.HeadOf(task.begin, task.end, task.head);
    head.grad_out = At(grad_out_THd, task.begin, task.head);
    head.delta = grads.delta_HT.mutable_data_ptr<float>() + task.head * tokens + task.begin;
    head.grad_q = MutableAt(grads.q_THd, task.begin, task.head);
    head.grad_q_stride = head.grad_kv_stride = row;
    head.grad_k = reinterpret_cast<float*>(MutableAt(grads.k_THd, task.begin, task.head));
    head.grad_v = reinterpret_cast<float*>(MutableAt(grads.v_THd, task.begin, task.head));
    Chosen().backward(head, attention.scores, memory);
  });
  return grads;
}

// Sums the gradients of the query heads that share a key, in their order.
at::Tensor SumGroups(const at::Tensor& grad_THd, const at::Tensor& like_TKd) {
  at::Tensor sum = at::empty({like_TKd.size(0), like_TKd.size(1), like_TKd.size(2)}, like_TKd.options());
  HeadGroups groups;
  groups.kv_heads = like_TKd.size(1);
  groups.group = grad_THd.size(1) / groups.kv_heads;
  groups.width = like_TKd.size(2);
  groups.bf16 = like_TKd.scalar_type() == at::kBFloat16;
  groups.grad = grad_THd.const_data_ptr<float>();
  groups.to = sum.mutable_data_ptr();
  const int64_t grain = std::max<int64_t>(1, kSumGrain / (grad_THd.size(1) * groups.width));
  at::parallel_for(0, sum.size(0), grain, [&](int64_t begin, int64_t end) { Chosen().sum_groups(groups, begin, end); });
  return sum;
}

// A sink's value is zero, so dS = P · (0 − rowsum(P ∘ dP)).
at::Tensor GradientOfSinks(const Attention& attention, const at::Tensor& delta_HT) {
  const at::Tensor logsumexp_HT = attention.logsumexp_HT * std::numbers::ln2;
  return ((attention.sinks_H.unsqueeze(1) - logsumexp_HT).exp_() * delta_HT).sum(1).neg_();
}

class PackedAttentionFunction : public torch::autograd::Function<PackedAttentionFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q_THd, const at::Tensor& k_TKd,
                            const at::Tensor& v_TKd, const std::optional<at::Tensor>& sinks_H,
                            const std::vector<int64_t>& document_starts, const ScoreConfig& config) {
    Attention attention;
    attention.q_THd = DenseHeads(q_THd);
    attention.k_TKd = DenseHeads(k_TKd);
    attention.v_TKd = DenseHeads(v_TKd);
    if (sinks_H) attention.sinks_H = sinks_H->to(at::kFloat);
    attention.out_THd = at::empty(q_THd.sizes(), q_THd.options());
    attention.logsumexp_HT = at::empty({q_THd.size(1), q_THd.size(0)}, q_THd.options().dtype(at::kFloat));
    attention.document_starts = document_starts;
    attention.scores = {static_cast<float>(config.scale), static_cast<float>(config.softcap), config.window};
    Forward(attention);
    context->save_for_backward({attention.q_THd, attention.k_TKd, attention.v_TKd, sinks_H.value_or(at::Tensor()),
                                attention.out_THd, attention.logsumexp_HT});
    context->saved_data["document_starts"] = document_starts;
    context->saved_data["scale"] = config.scale;
    context->saved_data["softcap"] = config.softcap;
    context->saved_data["window"] = config.window;
    return attention.out_THd;
  }

  static variable_list backward(AutogradContext* context, variable_list grad) {
    const variable_list saved = context->get_saved_variables();
    Attention attention = {saved[0], saved[1], saved[2], saved[3], saved[4], saved[5]};
    if (saved[3].defined()) attention.sinks_H = saved[3].to(at::kFloat);
    attention.document_starts = context->saved_data["document_starts"].toIntVector();
    attention.scores = {static_cast<float>(context->saved_data["scale"].toDouble()),
                        static_cast<float>(context->saved_data["softcap"].toDouble()),
                        context->saved_data["window"].toInt()};
    const Gradients grads = Backward(attention, grad[0].contiguous());
    at::Tensor grad_sinks_H;
    if (saved[3].defined()) grad_sinks_H = GradientOfSinks(attention, grads.delta_HT).to(saved[3].scalar_type());
    return {grads.q_THd,
            SumGroups(grads.k_THd, attention.k_TKd),
            SumGroups(grads.v_THd, attention.v_TKd),
            grad_sinks_H,
            at::Tensor(),
            at::Tensor()};
  }
};

}  // namespace

bool CanPackedAttention(const at::Tensor& q_THd, const at::Tensor& k_TKd, const at::Tensor& v_TKd) {
  if (Kernels() == InstructionSet::kNone || !q_THd.is_cpu() || q_THd.size(2) % 2 != 0) return false;
  const auto dtype = q_THd.scalar_type();
  for (const at::Tensor& x : {q_THd, k_TKd, v_TKd}) {
    // Numbers are moved in pairs.
    if (x.scalar_type() != dtype || (x.stride(2) == 1 && x.stride(0) % 2 != 0)) return false;
  }
  return dtype == at::kFloat || (dtype == at::kBFloat16 && HasBf16Brgemm());
}

at::Tensor PackedAttention(const at::Tensor& q_THd, const at::Tensor& k_TKd, const at::Tensor& v_TKd,
                           const std::vector<int64_t>& document_starts, const ScoreConfig& config,
                           const at::Tensor& sinks_H) {
  // autograd::Function takes no undefined tensor.
  const std::optional<at::Tensor> given_sinks_H = sinks_H.defined() ? std::optional(sinks_H) : std::nullopt;
  return PackedAttentionFunction::apply(q_THd, k_TKd, v_TKd, given_sinks_H, document_starts, config);
}

}  // namespace temper::ops::cpu
