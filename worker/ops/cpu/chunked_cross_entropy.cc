// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/chunked_cross_entropy.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <memory>

#include "worker/ops/cpu/brgemm.h"
#include "worker/ops/cpu/lm_head_chunk.h"
#include "worker/ops/cpu/operators.h"
#include "worker/ops/cpu/tasks.h"

// Legend: S scored rows, C those of a chunk, padded; D hidden; V vocabulary with padding.

namespace temper::ops::cpu {
namespace {

// 50 MB of logits at a vocabulary of 49,152.
constexpr int64_t kRowsPerChunk = 256;

const LmHeadKernels& Chosen() { return Choose(avx2::kLmHead, avx512::kLmHead); }

// The memory that chunks use, one after another.
class ChunkMemory {
 public:
  ChunkMemory(const at::Tensor& hidden_SD, const at::Tensor& weight_VD, int64_t vocab_size, const LogitConfig& config) {
    chunk_.bf16 = hidden_SD.scalar_type() == at::kBFloat16;
    chunk_.padded = PaddedRows(std::min(kRowsPerChunk, hidden_SD.size(0)));
    chunk_.width = hidden_SD.size(1);
    chunk_.vocab_rows = weight_VD.size(0);
    chunk_.vocab_size = vocab_size;
    chunk_.weight_VD = weight_VD.const_data_ptr();
    chunk_.scale = static_cast<float>(config.scale);
    chunk_.softcap = static_cast<float>(config.softcap);
    const int64_t operand = chunk_.padded * chunk_.width;
    chunk_.hidden_transposed_right = Keep(at::empty({operand}, hidden_SD.options()));
    targets_C_ = at::empty({chunk_.padded}, at::kInt);
    chunk_.targets_C = targets_C_.const_data_ptr<int32_t>();
    chunk_.maximum = Floats(chunk_.tiles() * chunk_.padded);
    chunk_.exponentials = Floats(chunk_.tiles() * chunk_.padded);
    chunk_.target_logit_C = Floats(chunk_.padded);
    chunk_.logsumexp_C = Floats(chunk_.padded);
  }

  // What gradients need beside.
  void AddBackward(const at::Tensor& hidden_SD, at::Tensor grad_weight_VD, bool with_means) {
    chunk_.logits_VC = Floats(chunk_.vocab_rows * chunk_.padded);
    chunk_.grad_hidden_slices = Floats(kVocabSlices * chunk_.padded * chunk_.width);
    if (with_means) {
      chunk_.total = Floats(chunk_.tiles() * chunk_.padded);
      chunk_.mean_logit_C = Floats(chunk_.padded);
    }
    if (!grad_weight_VD.defined()) return;
    chunk_.hidden_right = Keep(at::empty({chunk_.padded * chunk_.width}, hidden_SD.options()));
    chunk_.grad_weight_VD = grad_weight_VD.mutable_data_ptr<float>();
  }

  // The chunk of rows [begin, begin + rows).
  LmHeadChunk& Fill(const at::Tensor& hidden_SD, const at::Tensor& targets_S, int64_t begin, int64_t rows) {
    chunk_.rows = rows;
    chunk_.padded = PaddedRows(rows);
    targets_C_.fill_(-1);
    targets_C_.narrow(0, 0, rows).copy_(targets_S.narrow(0, begin, rows));
    std::fill_n(chunk_.target_logit_C, chunk_.padded, 0.0f);
    Chosen().pack_rows(chunk_, hidden_SD[begin].const_data_ptr(), hidden_SD.stride(0));
    return chunk_;
  }

 private:
  static int64_t PaddedRows(int64_t rows) { return (rows + kLmHeadRows - 1) / kLmHeadRows * kLmHeadRows; }

  void* Keep(at::Tensor tensor) {
    tensors_.push_back(std::move(tensor));
    return tensors_.back().mutable_data_ptr();
  }
  float* Floats(int64_t count) { return static_cast<float*>(Keep(at::empty({count}, at::kFloat))); }

  LmHeadChunk chunk_;
  at::Tensor targets_C_;
  std::vector<at::Tensor> tensors_;
};

template <typename Work>
void RunLmHeadTasks(int64_t tasks, int64_t scratch_bytes, const Work& work) {
  RunTasks(tasks, [&] {
    const at::Tensor memory = at::empty({scratch_bytes}, at::kByte);
    const std::shared_ptr<void> release(nullptr, [memory](void*) { ReleaseBrgemm(); });
    return [&work, memory, release](int64_t task) { work(task, static_cast<char*>(memory.mutable_data_ptr())); };
  });
}

// Logits of a chunk, their log-sum-exps and targets; [rows] log-probabilities.
void Forward(const LmHeadChunk& chunk, at::Tensor logprobs_C) {
  const int64_t scratch = kVocabTile * chunk.padded * static_cast<int64_t>(sizeof(float));
  RunLmHeadTasks(chunk.tiles(), scratch, [&](int64_t tile, char* memory) {
    Chosen().forward_tile(chunk, tile, reinterpret_cast<float*>(memory));
  });
  Chosen().combine_tiles(chunk);
  float* const logprobs = logprobs_C.mutable_data_ptr<float>();
  for (int64_t i = 0; i < chunk.rows; ++i) logprobs[i] = chunk.target_logit_C[i] - chunk.logsumexp_C[i];
}

// What a chunk's rows pay, and by how much the penalty pushes each row's softmax.
double AddPenalty(const LmHeadChunk& chunk, const DistributionPenalty& penalty, std::vector<float>& softmax_factor_C) {
  double sum = 0;
  for (int64_t i = 0; i < chunk.rows; ++i) {
    const double lse = chunk.logsumexp_C[i];
    sum += penalty.log_normalizer * lse * lse + penalty.uniform * (lse - chunk.mean_logit_C[i]);
    softmax_factor_C[i] += static_cast<float>(penalty.uniform + 2 * penalty.log_normalizer * lse);
  }
  return sum;
}

template <typename Visit>
void ForEachChunk(int64_t rows, Visit visit) {
  for (int64_t begin = 0; begin < rows; begin += kRowsPerChunk) visit(begin, std::min(kRowsPerChunk, rows - begin));
}

}  // namespace

bool CanTokenLogprobs(const at::Tensor& hidden_SD, const at::Tensor& weight_VD) {
  if (Kernels() == InstructionSet::kNone || !hidden_SD.is_cpu()) return false;
  if (hidden_SD.scalar_type() != weight_VD.scalar_type() || !weight_VD.is_contiguous()) return false;
  if (hidden_SD.size(0) == 0 || hidden_SD.stride(1) != 1) return false;
  if (hidden_SD.scalar_type() == at::kFloat) return true;
  return hidden_SD.scalar_type() == at::kBFloat16 && HasBf16Brgemm() && hidden_SD.size(1) % 2 == 0 &&
         hidden_SD.stride(0) % 2 == 0;
}

at::Tensor TokenLogprobs(const at::Tensor& hidden_SD, const at::Tensor& weight_VD, int64_t vocab_size,
                         const at::Tensor& targets_S, const LogitConfig& config) {
  const at::NoGradGuard no_grad;
  at::Tensor logprobs_S = at::empty({hidden_SD.size(0)}, at::kFloat);
  ChunkMemory memory(hidden_SD, weight_VD, vocab_size, config);
  ForEachChunk(hidden_SD.size(0), [&](int64_t begin, int64_t rows) {
    Forward(memory.Fill(hidden_SD, targets_S, begin, rows), logprobs_S.narrow(0, begin, rows));
  });
  return logprobs_S;
}

LogprobGradients TokenLogprobsWithGradients(const at::Tensor& hidden_SD, const at::Tensor& weight_VD,
                                            int64_t vocab_size, const at::Tensor& targets_S,
                                            const at::Tensor& coefficient_S, at::Tensor grad_weight_VD,
                                            const DistributionPenalty& penalty, const LogitConfig& config) {
  const at::NoGradGuard no_grad;
  LogprobGradients result{at::empty({hidden_SD.size(0)}, at::kFloat),
                          at::empty(hidden_SD.sizes(), hidden_SD.options())};
  ChunkMemory memory(hidden_SD, weight_VD, vocab_size, config);
  memory.AddBackward(hidden_SD, grad_weight_VD, penalty.any());
  const at::Tensor coefficients = coefficient_S.contiguous();
  ForEachChunk(hidden_SD.size(0), [&](int64_t begin, int64_t rows) {
    LmHeadChunk& chunk = memory.Fill(hidden_SD, targets_S, begin, rows);
    Forward(chunk, result.logprobs_S.narrow(0, begin, rows));
    const float* const given = coefficients.const_data_ptr<float>() + begin;
    // Zero in the padding: its rows pay nothing.
    std::vector<float> coefficient_C(chunk.padded, 0.0f), softmax_factor_C(chunk.padded, 0.0f);
    for (int64_t i = 0; i < rows; ++i) {
      coefficient_C[i] = given[i];
      softmax_factor_C[i] = -given[i];
    }
    if (penalty.any()) result.penalty += AddPenalty(chunk, penalty, softmax_factor_C);
    chunk.coefficient_C = coefficient_C.data();
    chunk.softmax_factor_C = softmax_factor_C.data();
    chunk.uniform = static_cast<float>(penalty.uniform / static_cast<double>(vocab_size));
    RunLmHeadTasks(kVocabSlices, Chosen().backward_scratch(chunk),
                   [&](int64_t slice, char* scratch) { Chosen().backward_slice(chunk, slice, scratch); });
    void* const grad_hidden = result.grad_hidden_SD[begin].mutable_data_ptr();
    at::parallel_for(0, chunk.padded / kLmHeadRows, 1, [&](int64_t first, int64_t end) {
      for (int64_t i = first; i < end; ++i) {
        Chosen().store_grad_hidden(chunk, i * kLmHeadRows, grad_hidden, chunk.width);
      }
    });
  });
  return result;
}

}  // namespace temper::ops::cpu
