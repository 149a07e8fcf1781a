// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "worker/ops/cpu/attention_functors.h"
#include "worker/ops/cpu/attention_head.h"
#include "worker/ops/cpu/brgemm.h"
#include "worker/ops/cpu/pack.h"

// Attention of one query head over one document, a block of queries and keys at a time (Dao et al. 2022), every product
// by Brgemm. Scores are kept as [keys][queries]: maxima and sums over keys are then sums of vectors, and what comes out
// of the softmax is the right operand of the next product as it stands.
//
// Legend: kQ queries and kK keys of a block, d head width. Operands end in L (left) or R (right), as Brgemm takes them.

namespace temper::ops::cpu::TEMPER_ISA {

template <typename Element, typename Mask, typename Score>
class AttentionKernel {
 public:
  AttentionKernel(const AttentionHead& head, const Mask& mask, const Score& score)
      : head_(head), mask_(mask), score_(score), length_(head.length), d_(head.width) {}

  void Forward(int64_t first_query, int64_t end_query, char* scratch) const {
    Allocator memory(scratch);
    const int64_t key_blocks = Blocks(length_, kK);
    Element* const values_L = memory.Take<Element>(key_blocks * d_ * kK);
    Element* const queries_R = memory.Take<Element>(d_ * kQ);
    Element* const weights_R = memory.Take<Element>(kK * kQ);
    Element* const padded = memory.Take<Element>(kK * d_);
    float* const scores = memory.Take<float>(kK * kQ);
    float* const out = memory.Take<float>(d_ * kQ);
    bool* const packed = memory.Take<bool>(key_blocks);  // which blocks of values_L there are
    for (int64_t block = 0; block < key_blocks; ++block) packed[block] = false;
    for (int64_t q = first_query; q < end_query; q += kQ) {
      const int64_t queries = Smaller(kQ, length_ - q);
      PackRightTransposed(Shifted(Queries(), q), queries, d_, kQ, queries_R);
      SoftmaxState state(head_);
      for (int64_t i = 0; i < d_ * kQ; ++i) out[i] = 0;
      for (int64_t block = 0; block < key_blocks; ++block) {
        const int64_t k = block * kK, keys = Smaller(kK, length_ - k);
        const Visibility visibility = mask_.Of(q, q + queries - 1, k, k + keys - 1);
        if (visibility == Visibility::kNone) continue;
        Element* const block_L = values_L + block * d_ * kK;
        if (!packed[block]) PackLeftTransposed(Shifted(Values(), k), keys, d_, kK, block_L, padded);
        packed[block] = true;
        Product(WholeRows(Keys(), k, padded), queries_R, d_, scores);
        SoftmaxBlock(scores, q, k, keys, visibility, state, weights_R, out);
        Brgemm({d_, kQ, kK, kK, kQ, kQ}, /*add=*/true, block_L, weights_R, out);
      }
      StoreOutput(state, q, queries, out);
    }
  }

  void Backward(char* scratch) const {
    Allocator memory(scratch);
    const int64_t query_blocks = Blocks(length_, kQ), key_blocks = Blocks(length_, kK);
    const int64_t size = query_blocks * d_ * kQ;
    Element* const queries_R = memory.Take<Element>(size);   // as rows
    Element* const queriesT_R = memory.Take<Element>(size);  // transposed
    Element* const grad_out_R = memory.Take<Element>(size);
    Element* const grad_outT_R = memory.Take<Element>(size);
    float* const grad_queriesT = memory.Take<float>(size);
    float* const logsumexp = memory.Take<float>(query_blocks * kQ);
    float* const delta = memory.Take<float>(query_blocks * kQ);
    BackwardBlock block(memory, d_);
    for (int64_t i = 0; i < query_blocks; ++i) {
      const int64_t q = i * kQ, queries = Smaller(kQ, length_ - q), at = i * d_ * kQ;
      PackRight(Shifted(Queries(), q), queries, d_, kQ, queries_R + at);
      PackRightTransposed(Shifted(Queries(), q), queries, d_, kQ, queriesT_R + at);
      PackRight(Shifted(GradOut(), q), queries, d_, kQ, grad_out_R + at);
      PackRightTransposed(Shifted(GradOut(), q), queries, d_, kQ, grad_outT_R + at);
    }
    for (int64_t i = 0; i < size; ++i) grad_queriesT[i] = 0;
    LoadStatistics(logsumexp, delta, query_blocks * kQ);
    for (int64_t i = 0; i < key_blocks; ++i) {
      const int64_t k = i * kK, keys = Smaller(kK, length_ - k);
      const Rows<Element> keys_L = WholeRows(Keys(), k, block.padded_keys);
      const Rows<Element> values_L = WholeRows(Values(), k, block.padded_values);
      PackLeftTransposed(Shifted(Keys(), k), keys, d_, kK, block.keysT_L, block.work);
      bool any = false;
      for (int64_t j = 0; j < query_blocks; ++j) {
        const int64_t q = j * kQ, at = j * d_ * kQ;
        const Visibility visibility = mask_.Of(q, Smaller(q + kQ, length_) - 1, k, k + keys - 1);
        if (visibility == Visibility::kNone) continue;
        Product(keys_L, queriesT_R + at, d_, block.scores);
        Product(values_L, grad_outT_R + at, d_, block.grad_weights);
        GradientsOfScores(block, q, k, keys, visibility, logsumexp + q, delta + q);
        Brgemm({kK, d_, kQ, kQ, d_, d_}, any, block.weights_L, grad_out_R + at, block.grad_values);
        Brgemm({kK, d_, kQ, kQ, d_, d_}, any, block.grad_scores_L, queries_R + at, block.grad_keys);
        Brgemm({d_, kQ, kK, kK, kQ, kQ}, /*add=*/true, block.keysT_L, block.grad_scores_R, grad_queriesT + at);
        any = true;
      }
      StoreSums(any ? block.grad_keys : nullptr, keys, head_.grad_k + k * head_.grad_kv_stride);
      StoreSums(any ? block.grad_values : nullptr, keys, head_.grad_v + k * head_.grad_kv_stride);
    }
    for (int64_t i = 0; i < query_blocks; ++i) {
      const int64_t q = i * kQ;
      StoreTransposed(grad_queriesT + i * d_ * kQ, Smaller(kQ, length_ - q), nullptr,
                      static_cast<Element*>(head_.grad_q) + q * head_.grad_q_stride, head_.grad_q_stride);
    }
  }

  // Bytes of scratch memory that they need.
  static int64_t ForwardScratch(int64_t length, int64_t d) {
    Allocator memory(nullptr);
    memory.Take<Element>(Blocks(length, kK) * d * kK);
    memory.Take<Element>(d * kQ);
    memory.Take<Element>(kK * kQ);
    memory.Take<Element>(kK * d);
    memory.Take<float>(kK * kQ);
    memory.Take<float>(d * kQ);
    memory.Take<bool>(Blocks(length, kK));
    return memory.taken();
  }
  static int64_t BackwardScratch(int64_t length, int64_t d) {
    Allocator memory(nullptr);
    const int64_t query_blocks = Blocks(length, kQ), size = query_blocks * d * kQ;
    for (int i = 0; i < 4; ++i) memory.Take<Element>(size);
    memory.Take<float>(size);
    for (int i = 0; i < 2; ++i) memory.Take<float>(query_blocks * kQ);
    BackwardBlock(memory, d);
    return memory.taken();
  }

 private:
  static constexpr int64_t kQ = kAttentionBlock, kK = kAttentionBlock;
  static constexpr int64_t kGroups = kQ / kLanes;  // vectors of a row of scores
  // Hides a key; and a maximum over hidden keys alone, from which the distance to any score is finite.
  static constexpr float kHidden = -__builtin_inff(), kNothing = -1e30f;

  static int64_t Blocks(int64_t length, int64_t block) { return (length + block - 1) / block; }

  // Hands out pieces of one allocation, each on a line of the cache of its own.
  class Allocator {
   public:
    explicit Allocator(char* memory) : memory_(memory) {}
    template <typename T>
    T* Take(int64_t count) {
      T* const piece = memory_ == nullptr ? nullptr : reinterpret_cast<T*>(memory_ + taken_);
      taken_ += (count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
      return piece;
    }
    int64_t taken() const { return taken_; }

   private:
    char* memory_;
    int64_t taken_ = 0;
  };

  // Online softmax (Milakov & Gimelshein 2018) of a block of queries, to base 2.
  struct SoftmaxState {
    explicit SoftmaxState(const AttentionHead& head) {
      for (int64_t g = 0; g < kGroups; ++g) {
        // A sink is a key that was seen before all others and has no value.
        maximum[g] = Broadcast(head.has_sink ? head.sink * kLog2E : kNothing);
        sum[g] = Broadcast(head.has_sink ? 1.0f : 0.0f);
      }
    }
    Floats maximum[kGroups];
    Floats sum[kGroups];
  };

  struct BackwardBlock {
    BackwardBlock(Allocator& memory, int64_t d)
        : padded_keys(memory.template Take<Element>(kK * d)),
          padded_values(memory.template Take<Element>(kK * d)),
          keysT_L(memory.template Take<Element>(kK * d)),
          work(memory.template Take<Element>(kK * d)),
          weights_L(memory.template Take<Element>(kK * kQ)),
          grad_scores_L(memory.template Take<Element>(kK * kQ)),
          grad_scores_R(memory.template Take<Element>(kK * kQ)),
          scores(memory.template Take<float>(kK * kQ)),
          grad_weights(memory.template Take<float>(kK * kQ)),
          grad_keys(memory.template Take<float>(kK * d)),
          grad_values(memory.template Take<float>(kK * d)) {}
    Element *padded_keys, *padded_values, *keysT_L, *work, *weights_L, *grad_scores_L, *grad_scores_R;
    float *scores, *grad_weights, *grad_keys, *grad_values;
  };

  Rows<Element> Queries() const { return {static_cast<const Element*>(head_.q), head_.q_stride}; }
  Rows<Element> Keys() const { return {static_cast<const Element*>(head_.k), head_.k_stride}; }
  Rows<Element> Values() const { return {static_cast<const Element*>(head_.v), head_.v_stride}; }
  Rows<Element> GradOut() const { return {static_cast<const Element*>(head_.grad_out), head_.out_stride}; }
  static Rows<Element> Shifted(Rows<Element> x, int64_t row) { return {x.row(row), x.stride}; }

  // The block of keys or values from row `k` on. One that the document's end cuts is copied, zeros behind it.
  Rows<Element> WholeRows(Rows<Element> x, int64_t k, Element* padded) const {
    if (k + kK <= length_) return Shifted(x, k);
    for (int64_t r = 0; r < kK; ++r) {
      for (int64_t c = 0; c < d_; ++c) padded[r * d_ + c] = k + r < length_ ? x.row(k + r)[c] : Element{};
    }
    return {padded, d_};
  }

  // [keys][queries] = left (kK rows of d) · right (d × kQ).
  static void Product(Rows<Element> left, const Element* right, int64_t d, float* to) {
    Brgemm({kK, kQ, d, left.stride, kQ, kQ}, /*add=*/false, left.data, right, to);
  }

  // A row of weights as it is kept for the next product: a right operand, and a left one.
  static TEMPER_INLINE void StoreRight(Floats even, Floats odd, int64_t row, int64_t column, float* to) {
    Store(to + row * kQ + column, even);
    Store(to + (row + 1) * kQ + column, odd);
  }
  static TEMPER_INLINE void StoreRight(Floats even, Floats odd, int64_t row, int64_t column, Bf16* to) {
    const Words pairs = RoundedWords(even) >> 16 | (RoundedWords(odd) & 0xffff0000u);
    __builtin_memcpy(to + row * kQ + 2 * column, &pairs, sizeof(pairs));
  }

  // Weights of one block of keys, unnormalised; what was summed before is scaled down to the new maximum.
  void SoftmaxBlock(float* scores, int64_t q, int64_t k, int64_t keys, Visibility visibility, SoftmaxState& state,
                    Element* weights_R, float* out) const {
    for (int64_t g = 0; g < kGroups; ++g) {
      const int64_t column = g * kLanes;
      const Ints queries = Broadcast(static_cast<int32_t>(q + column)) + Iota();
      Floats maximum = state.maximum[g];
      for (int64_t r = 0; r < keys; ++r) {
        float* const at = scores + r * kQ + column;
        Floats score = score_.Score(Load(at)) * kLog2E;
        if (visibility == Visibility::kSome) {
          score = mask_.Visible(queries, static_cast<int32_t>(k + r)) ? score : Broadcast(kHidden);
        }
        maximum = Max(maximum, score);
        Store(at, score);
      }
      const Floats shrink = Exp2(state.maximum[g] - maximum);
      Floats sum = state.sum[g] * shrink;
      for (int64_t r = 0; r < kK; r += 2) {
        const Floats even = r < keys ? Exp2(Load(scores + r * kQ + column) - maximum) : Floats{};
        const Floats odd = r + 1 < keys ? Exp2(Load(scores + (r + 1) * kQ + column) - maximum) : Floats{};
        sum += even + odd;
        StoreRight(even, odd, r, column, weights_R);
      }
      for (int64_t c = 0; c < d_; ++c) Store(out + c * kQ + column, Load(out + c * kQ + column) * shrink);
      state.maximum[g] = maximum;
      state.sum[g] = sum;
    }
  }

  void StoreOutput(const SoftmaxState& state, int64_t q, int64_t queries, float* out) const {
    Floats inverse[kGroups];
    for (int64_t g = 0; g < kGroups; ++g) {
      inverse[g] = state.sum[g] > 0.0f ? 1.0f / state.sum[g] : Floats{};
      for (int64_t i = 0; i < kLanes; ++i) {
        const int64_t query = g * kLanes + i;
        if (query >= queries) break;
        const float sum = state.sum[g][i];
        // Of a query that sees nothing: every weight is 2^(score − ∞) = 0 then.
        head_.logsumexp[q + query] = sum > 0 ? state.maximum[g][i] + __builtin_log2f(sum) : __builtin_inff();
      }
    }
    StoreTransposed(out, queries, inverse, static_cast<Element*>(head_.out) + q * head_.out_stride, head_.out_stride);
  }

  // to[q][c] = from[c][q] · factor[q].
  void StoreTransposed(const float* from, int64_t queries, const Floats* factor, Element* to, int64_t stride) const {
    for (int64_t g = 0; g * kLanes < queries; ++g) {
      const int64_t count = Smaller(kLanes, queries - g * kLanes);
      for (int64_t c = 0; c < d_; c += kLanes) {
        const int64_t columns = Smaller(kLanes, d_ - c);
        Words tile[kLanes] = {};
        for (int64_t i = 0; i < columns; ++i) {
          const Floats value = Load(from + (c + i) * kQ + g * kLanes);
          tile[i] = BitCast<Words>(factor == nullptr ? value : value * factor[g]);
        }
        Transpose(tile);
        for (int64_t i = 0; i < count; ++i) {
          Element* const row = to + (g * kLanes + i) * stride + c;
          StoreSome(row, BitCast<Floats>(tile[i]), columns);
        }
      }
    }
  }

  // Each query's log-sum-exp, and rowsum(P ∘ dP) = rowsum(dO ∘ O).
  void LoadStatistics(float* logsumexp, float* delta, int64_t padded) const {
    const auto* const out = static_cast<const Element*>(head_.out);
    for (int64_t q = 0; q < padded; ++q) {
      logsumexp[q] = q < length_ ? head_.logsumexp[q] : __builtin_inff();
      Floats sum = {};
      if (q < length_) {
        const Element *const a = out + q * head_.out_stride, *const b = GradOut().row(q);
        ForEachVector(d_, [&](int64_t c, int64_t count) { sum += LoadSome(a + c, count) * LoadSome(b + c, count); });
        delta[q] = Sum(sum);
        if (head_.delta != nullptr) head_.delta[q] = delta[q];
      } else {
        delta[q] = 0;
      }
    }
  }

  // P = 2^(score − lse) and dS = P ∘ (dP − delta) ∘ slope.
  void GradientsOfScores(BackwardBlock& block, int64_t q, int64_t k, int64_t keys, Visibility visibility,
                         const float* logsumexp, const float* delta) const {
    for (int64_t g = 0; g < kGroups; ++g) {
      const int64_t column = g * kLanes;
      const Ints queries = Broadcast(static_cast<int32_t>(q + column)) + Iota();
      const Floats lse = Load(logsumexp + column), mean = Load(delta + column);
      for (int64_t r = 0; r < kK; r += 2) {
        Floats grads[2] = {};
        for (int64_t i = 0; i < 2; ++i) {
          const int64_t at = (r + i) * kQ + column;
          Floats weight = {};
          if (r + i < keys) {
            const Floats score = score_.Score(Load(block.scores + at));
            weight = Exp2(score * kLog2E - lse);
            if (visibility == Visibility::kSome) {
              weight = mask_.Visible(queries, static_cast<int32_t>(k + r + i)) ? weight : Floats{};
            }
            grads[i] = weight * (Load(block.grad_weights + at) - mean) * score_.Slope(score);
          }
          Store(block.weights_L + at, weight);
          Store(block.grad_scores_L + at, grads[i]);
        }
        StoreRight(grads[0], grads[1], r, column, block.grad_scores_R);
      }
    }
  }

  // Rows of a gradient of keys or values; null: zeros.
  void StoreSums(const float* from, int64_t keys, float* to) const {
    for (int64_t r = 0; r < keys; ++r) {
      for (int64_t c = 0; c < d_; ++c) to[r * head_.grad_kv_stride + c] = from == nullptr ? 0.0f : from[r * d_ + c];
    }
  }

  const AttentionHead& head_;
  Mask mask_;
  Score score_;
  int64_t length_;
  int64_t d_;
};

}  // namespace temper::ops::cpu::TEMPER_ISA
