// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/cpu/attention_functors.h"
#include "worker/ops/cpu/brgemm.h"
#include "worker/ops/cpu/lm_head_chunk.h"
#include "worker/ops/cpu/pack.h"

// Legend: as LmHeadChunk.

namespace temper::ops::cpu::TEMPER_ISA {
namespace {

// The rows of the vocabulary that a tile has, and how many of them are no padding.
struct Tile {
  Tile(const LmHeadChunk& chunk, int64_t index)
      : begin(index * kVocabTile),
        rows(Smaller(kVocabTile, chunk.vocab_rows - begin)),
        valid(Larger(0, Smaller(rows, chunk.vocab_size - begin))) {}
  int64_t begin, rows, valid;
};

template <typename Score>
void ReduceTile(const LmHeadChunk& chunk, const Tile& tile, int64_t index, const Score& score, float* logits) {
  const int64_t columns = chunk.padded;
  for (int64_t c = 0; c < columns; c += kLanes) {
    const Ints targets = BitCast<Ints>(Load(reinterpret_cast<const float*>(chunk.targets_C) + c));
    Floats maximum = Broadcast(-1e30f), total = {}, sum = {}, target_logit = {};
    Ints found = {};
    for (int64_t v = 0; v < tile.valid; ++v) {
      float* const at = logits + v * columns + c;
      const Floats logit = score.Score(Load(at));
      Store(at, logit);
      maximum = Max(maximum, logit);
      total += logit;
      const Ints is_target = targets == static_cast<int32_t>(tile.begin + v);
      target_logit = is_target ? logit : target_logit;
      found |= is_target;
    }
    maximum *= kLog2E;
    for (int64_t v = 0; v < tile.valid; ++v) sum += Exp2(Load(logits + v * columns + c) * kLog2E - maximum);
    Store(chunk.maximum + index * columns + c, maximum);
    Store(chunk.exponentials + index * columns + c, sum);
    if (chunk.total != nullptr) Store(chunk.total + index * columns + c, total);
    // One by one: another tile may be writing to a neighbour.
    for (int64_t i = 0; i < kLanes; ++i) {
      if (found[i] != 0) chunk.target_logit_C[c + i] = target_logit[i];
    }
  }
}

template <typename Element>
void ForwardTile(const LmHeadChunk& chunk, int64_t index, float* scratch) {
  const Tile tile(chunk, index);
  const int64_t columns = chunk.padded;
  float* const logits = chunk.logits_VC == nullptr ? scratch : chunk.logits_VC + tile.begin * columns;
  Brgemm({tile.rows, columns, chunk.width, chunk.width, columns, columns}, /*add=*/false,
         static_cast<const Element*>(chunk.weight_VD) + tile.begin * chunk.width,
         static_cast<const Element*>(chunk.hidden_transposed_right), logits);
  if (chunk.softcap > 0) {
    ReduceTile(chunk, tile, index, SoftcappedScore{chunk.scale, chunk.softcap}, logits);
  } else {
    ReduceTile(chunk, tile, index, ScaledScore{chunk.scale}, logits);
  }
}

void CombineTiles(const LmHeadChunk& chunk) {
  const int64_t columns = chunk.padded;
  for (int64_t c = 0; c < columns; c += kLanes) {
    Floats maximum = Broadcast(-1e30f), sum = {}, total = {};
    for (int64_t tile = 0; tile < chunk.tiles(); ++tile) {
      maximum = Max(maximum, Load(chunk.maximum + tile * columns + c));
    }
    for (int64_t tile = 0; tile < chunk.tiles(); ++tile) {
      const int64_t at = tile * columns + c;
      sum += Load(chunk.exponentials + at) * Exp2(Load(chunk.maximum + at) - maximum);
      if (chunk.total != nullptr) total += Load(chunk.total + at);
    }
    for (int64_t i = 0; i < kLanes; ++i) chunk.logsumexp_C[c + i] = maximum[i] * kLn2 + __builtin_logf(sum[i]);
    if (chunk.total != nullptr) Store(chunk.mean_logit_C + c, total / static_cast<float>(chunk.vocab_size));
  }
}

// A tile's gradient, as left and as right operand.
template <typename Score>
TEMPER_INLINE Floats GradientOf(const LmHeadChunk& chunk, const Score& score, Floats logit, Ints is_target, int64_t c) {
  const Floats softmax = Exp2((logit - Load(chunk.logsumexp_C + c)) * kLog2E);
  const Floats at_target = is_target ? Load(chunk.coefficient_C + c) : Floats{};
  return (softmax * Load(chunk.softmax_factor_C + c) - chunk.uniform + at_target) * score.Slope(logit);
}

TEMPER_INLINE void StorePair(Floats even, Floats odd, int64_t stride, float* right) {
  Store(right, even);
  Store(right + stride, odd);
}
TEMPER_INLINE void StorePair(Floats even, Floats odd, int64_t stride, Bf16* right) {
  const Words pairs = RoundedWords(even) >> 16 | (RoundedWords(odd) & 0xffff0000u);
  __builtin_memcpy(right, &pairs, sizeof(pairs));
}
// Where the pair of rows (row, row + 1) of a right operand begins, at column c.
TEMPER_INLINE float* PairOf(float* right, int64_t row, int64_t columns, int64_t c) { return right + row * columns + c; }
TEMPER_INLINE Bf16* PairOf(Bf16* right, int64_t row, int64_t columns, int64_t c) {
  return right + row * columns + 2 * c;
}

template <typename Element, typename Score>
void TileGradient(const LmHeadChunk& chunk, const Tile& tile, const Score& score, Element* left, Element* right) {
  const int64_t columns = chunk.padded;
  const float* const logits = chunk.logits_VC + tile.begin * columns;
  for (int64_t c = 0; c < columns; c += kLanes) {
    const Ints targets = BitCast<Ints>(Load(reinterpret_cast<const float*>(chunk.targets_C) + c));
    for (int64_t v = 0; v < kVocabTile; v += 2) {
      Floats grads[2] = {};
      for (int64_t i = 0; i < 2 && v + i < tile.valid; ++i) {
        const Ints is_target = targets == static_cast<int32_t>(tile.begin + v + i);
        grads[i] = GradientOf(chunk, score, Load(logits + (v + i) * columns + c), is_target, c);
      }
      Store(left + v * columns + c, grads[0]);
      Store(left + (v + 1) * columns + c, grads[1]);
      StorePair(grads[0], grads[1], columns, PairOf(right, v, columns, c));
    }
  }
}

template <typename Element>
struct BackwardScratch {
  BackwardScratch(const LmHeadChunk& chunk, char* memory)
      : grad_left(reinterpret_cast<Element*>(memory)),
        grad_right(grad_left + kVocabTile * chunk.padded),
        weight_left(grad_right + kVocabTile * chunk.padded),
        work(weight_left + kVocabTile * chunk.width) {}
  static int64_t Bytes(const LmHeadChunk& chunk) {
    return 2 * kVocabTile * (chunk.padded + chunk.width) * static_cast<int64_t>(sizeof(Element));
  }
  Element *grad_left, *grad_right, *weight_left, *work;
};

template <typename Element>
void BackwardSlice(const LmHeadChunk& chunk, int64_t slice, char* memory) {
  const BackwardScratch<Element> scratch(chunk, memory);
  const int64_t columns = chunk.padded, d = chunk.width;
  float* const grad_hidden = chunk.grad_hidden_slices + slice * d * columns;
  const int64_t first = chunk.tiles() * slice / kVocabSlices, end = chunk.tiles() * (slice + 1) / kVocabSlices;
  if (first == end) {
    for (int64_t i = 0; i < d * columns; ++i) grad_hidden[i] = 0;
  }
  for (int64_t index = first; index < end; ++index) {
    const Tile tile(chunk, index);
    if (chunk.softcap > 0) {
      const SoftcappedScore score = {chunk.scale, chunk.softcap};
      TileGradient(chunk, tile, score, scratch.grad_left, scratch.grad_right);
    } else {
      TileGradient(chunk, tile, ScaledScore{chunk.scale}, scratch.grad_left, scratch.grad_right);
    }
    const Rows<Element> weight = {static_cast<const Element*>(chunk.weight_VD) + tile.begin * d, d};
    PackLeftTransposed(weight, tile.rows, d, kVocabTile, scratch.weight_left, scratch.work);
    Brgemm({d, columns, kVocabTile, kVocabTile, columns, columns}, /*add=*/index > first, scratch.weight_left,
           scratch.grad_right, grad_hidden);
    if (chunk.grad_weight_VD == nullptr) continue;
    Brgemm({tile.rows, d, columns, columns, d, d}, /*add=*/true, scratch.grad_left,
           static_cast<const Element*>(chunk.hidden_right), chunk.grad_weight_VD + tile.begin * d);
  }
}

template <typename Element>
void StoreGradHidden(const LmHeadChunk& chunk, int64_t begin, Element* to, int64_t stride) {
  const int64_t columns = chunk.padded, d = chunk.width;
  for (int64_t r = begin; r < Smaller(begin + kLmHeadRows, chunk.rows); r += kLanes) {
    const int64_t count = Smaller(kLanes, chunk.rows - r);
    for (int64_t c = 0; c < d; c += kLanes) {
      const int64_t width = Smaller(kLanes, d - c);
      Words tile[kLanes] = {};
      for (int64_t i = 0; i < width; ++i) {
        Floats sum = {};
        for (int64_t slice = 0; slice < kVocabSlices; ++slice) {
          sum += Load(chunk.grad_hidden_slices + (slice * d + c + i) * columns + r);
        }
        tile[i] = BitCast<Words>(sum);
      }
      Transpose(tile);
      for (int64_t i = 0; i < count; ++i) StoreSome(to + (r + i) * stride + c, BitCast<Floats>(tile[i]), width);
    }
  }
}

template <typename Element>
void PackRowsOf(const LmHeadChunk& chunk, const Element* hidden_SD, int64_t stride) {
  const Rows<Element> rows = {hidden_SD, stride};
  PackRightTransposed(rows, chunk.rows, chunk.width, chunk.padded,
                      static_cast<Element*>(chunk.hidden_transposed_right));
  if (chunk.hidden_right == nullptr) return;
  PackRight(rows, chunk.rows, chunk.width, chunk.padded, static_cast<Element*>(chunk.hidden_right));
}

void PackRows(const LmHeadChunk& chunk, const void* hidden_SD, int64_t stride) {
  chunk.bf16 ? PackRowsOf(chunk, static_cast<const Bf16*>(hidden_SD), stride)
             : PackRowsOf(chunk, static_cast<const float*>(hidden_SD), stride);
}

void ForwardAnyTile(const LmHeadChunk& chunk, int64_t tile, float* scratch) {
  chunk.bf16 ? ForwardTile<Bf16>(chunk, tile, scratch) : ForwardTile<float>(chunk, tile, scratch);
}

void BackwardAnySlice(const LmHeadChunk& chunk, int64_t slice, char* scratch) {
  chunk.bf16 ? BackwardSlice<Bf16>(chunk, slice, scratch) : BackwardSlice<float>(chunk, slice, scratch);
}

int64_t BackwardScratchBytes(const LmHeadChunk& chunk) {
  return chunk.bf16 ? BackwardScratch<Bf16>::Bytes(chunk) : BackwardScratch<float>::Bytes(chunk);
}

void StoreAnyGradHidden(const LmHeadChunk& chunk, int64_t begin, void* grad_hidden_SD, int64_t stride) {
  chunk.bf16 ? StoreGradHidden(chunk, begin, static_cast<Bf16*>(grad_hidden_SD), stride)
             : StoreGradHidden(chunk, begin, static_cast<float*>(grad_hidden_SD), stride);
}

}  // namespace

const LmHeadKernels kLmHead = {PackRows,         ForwardAnyTile,       CombineTiles,
                               BackwardAnySlice, BackwardScratchBytes, StoreAnyGradHidden};

}  // namespace temper::ops::cpu::TEMPER_ISA
